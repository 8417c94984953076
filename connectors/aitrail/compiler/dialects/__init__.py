"""One file per query language: a typed rule in, a query out; what a language cannot say raises ``Unsupported``."""
