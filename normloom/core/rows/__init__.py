"""Rows: their ids and seeds, their texts, why they are in quarantine, and which people took back."""
