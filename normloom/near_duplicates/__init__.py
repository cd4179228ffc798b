"""Near-duplicate texts: codes, exact search, and which rows repeat which."""
