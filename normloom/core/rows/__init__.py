"""Rows: ids and seeds, texts, quarantine rules, and rows that were taken back."""
