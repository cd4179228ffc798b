"""The engines of transformers and torch: causal language models, and encoders."""
