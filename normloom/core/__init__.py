"""The shared vocabulary: stages, contracts, tables, rows, errors, the model protocol."""
