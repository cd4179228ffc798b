"""Requests as models read them, and answers as steps do, whatever the engine."""
