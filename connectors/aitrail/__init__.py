"""aitrail: every access to an AI system as one normalized, classified and provable audit event."""

__version__ = "0.1.0"
