"""Parts of a table: what each reads, how it is made, what is held of it."""
