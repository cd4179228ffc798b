"""Meme abuse with cultural knowledge (after CROSS-ALIGN+, arXiv 2602.03822)."""
