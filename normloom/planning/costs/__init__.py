"""What a build asks of models and what that costs: bounds, estimates, limits."""
