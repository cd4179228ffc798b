"""One module per command; each imports what is heavy when it runs, so that the others answer at once."""
