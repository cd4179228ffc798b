"""One module per command; heavy imports happen when a command runs, so that the others start fast."""
