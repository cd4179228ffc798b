"""PersoDPO: its flow, its settings, and what its summary says."""
