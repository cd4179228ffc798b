"""Prompts: reading, labelling, expanding, typing them."""
