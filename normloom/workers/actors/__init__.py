"""Ray actors that hold a model: what each does, who starts and replaces them, and which part goes to which."""
