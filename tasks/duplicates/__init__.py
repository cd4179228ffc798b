"""Near-duplicate prompts: removing them, splitting around them, other thresholds."""
