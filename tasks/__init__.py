"""How one stage is done: one module per kind of stage."""
