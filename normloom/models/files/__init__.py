"""The files of models: where they are, their digests, and what is made of them once."""
