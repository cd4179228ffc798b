"""Near-duplicates found by the processes of a Ray cluster."""
