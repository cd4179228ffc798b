"""The vocabulary of everything else: stages, contracts, tables, rows, errors, the model protocol."""
