"""The engine for GPUs: vLLM."""
