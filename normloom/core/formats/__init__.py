"""Texts of formats: JSON, YAML, and files of text."""
