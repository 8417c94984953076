"""Destinations: one file per SIEM, bus or store; each says for every event what became of it."""
