"""The benchmark of models: its flow and its settings."""
