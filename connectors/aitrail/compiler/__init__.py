"""From content that people write to queries that a SIEM runs. Build-time only: nothing of it runs in the collector."""
