"""ConLLM, detection of deepfakes: its flow, its settings, and what its summary says."""
