"""A talk with a user: what was said, which facts were learned from it, what was replied, and what is taken back."""
