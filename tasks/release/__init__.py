"""Releases: rows brought together, measured."""
