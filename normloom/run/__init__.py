"""Building: from a flow of stages to published tables and a lock."""
