"""A seeded generator of working days of a made-up bank, written out in real wire formats.

Nothing here is a real person, account, key or card: documentation values only (example.com, RFC 5737 addresses, the
account numbers and the access key id of the AWS documentation, the card networks' public test numbers).
"""
