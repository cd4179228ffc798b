"""The cross-cultural evaluation of models on memes: its flow and its settings."""
