"""What listens: push receivers and OTLP over HTTP (ASGI)."""
