"""The local console: dashboards, events, findings and search over one store, in a browser."""
