"""Sections about what was measured."""
