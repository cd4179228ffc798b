"""Models: requests, specs and placement."""
