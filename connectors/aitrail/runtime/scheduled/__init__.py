"""Collectors without a server: one run, or one batch of messages, at a time, on a service that starts them."""
