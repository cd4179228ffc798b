"""Checks of a whole table, run before it publishes."""
