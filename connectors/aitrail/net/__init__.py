"""How aitrail reaches servers: TLS, time limits, addresses off limits. Sources and destinations stand on it."""
