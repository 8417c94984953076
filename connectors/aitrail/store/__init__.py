"""The embedded store: SQLite for state, Parquet segments for events, DuckDB in every reader."""
