"""The builds of a store: what each made and lost, what is fresh, what may go."""
