"""Sections about the rows themselves."""
