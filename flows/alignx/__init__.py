"""AlignX: its flow and its settings."""
