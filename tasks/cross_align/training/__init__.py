"""What CROSS-ALIGN+ trains: a head with a low-rank update, an adapter, and the pairs they learn from."""
