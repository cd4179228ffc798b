"""What endpoints reply, and how it is read."""
