"""Panels of raters, people and models."""
