"""PersoPilot: its flow and its settings."""
