"""What numba compiles for near-duplicates. It runs without Python's lock, so threads can share the work."""
