"""Digests of the code that decides a table."""
