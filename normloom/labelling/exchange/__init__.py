"""Answers from and for other tools: Label Studio, Argilla, and CSV files."""
