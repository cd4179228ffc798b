"""Meme abuse with cultural knowledge (CROSS-ALIGN+): its flow, its settings, and what its summary says."""
