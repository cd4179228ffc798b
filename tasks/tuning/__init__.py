"""Models tuned by LoRA: what all training steps share, and supervised tuning."""
