"""Figures of merit, one per module: plain functions from arrays to `Figure`s."""
