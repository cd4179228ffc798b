"""What came of what: differences between builds, traces of rows, OpenLineage."""
