"""Direct preference optimisation (DPO) with TRL and PEFT, in a way that can be killed at any moment."""
