"""What leaves a store: old tables and records, and rows that are taken back."""
