"""Models whose adapters are chosen or mixed by request: the router, its calibrators, and what serves them."""
