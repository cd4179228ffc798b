"""Who may write to a store, and who may remove from it."""
