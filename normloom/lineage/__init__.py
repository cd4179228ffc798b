"""Differences between builds, traces of rows, OpenLineage."""
