"""Preference pairs from automatic signals, and a policy trained on them (PersoDPO, arXiv 2602.04493)."""
