"""Privacy: keyed hashes, masking and sealing, applied before anything is written (DESIGN: content modes)."""
