"""What is built: one module per system."""
