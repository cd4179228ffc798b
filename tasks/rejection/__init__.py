"""Rejection sampling: candidates, verdicts, another round, the choice."""
