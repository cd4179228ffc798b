"""Contracts of tables about people: raters, personas, their labels, and what an analyst decides."""
