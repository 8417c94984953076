"""Normalizers: one file per record type, pure and total functions from raw bytes to outcomes."""
