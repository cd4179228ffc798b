"""SaVaCu: its flow, its settings, and what other systems share with it."""
