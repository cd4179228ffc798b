"""Harmful memes with a missing modality: its flow, its settings, and what its summary says."""
