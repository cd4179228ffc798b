"""Read-only commands about stores and systems."""
