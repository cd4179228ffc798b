"""Contracts of tables that models are trained on, or that tell how they were."""
