"""Texts of others in messages of ours."""


def printable(text: str) -> str:
    """Escape what a key could use to forge a line of a log or to paint a terminal."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
