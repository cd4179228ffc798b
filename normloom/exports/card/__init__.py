"""The card of a release: what the build knows, in words."""
