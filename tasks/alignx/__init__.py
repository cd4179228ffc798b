"""Experts by axis, the router that weighs them, and its calibrators."""
