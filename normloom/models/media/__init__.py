"""Encoders of images and sound, and of texts in many languages from a package."""
