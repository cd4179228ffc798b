"""Demo-SafetyBench: its flow and its settings."""
