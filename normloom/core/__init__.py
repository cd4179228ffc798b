"""What everything else is told in: stages, contracts, tables, rows, errors, the model protocol."""
