"""Detection on the embedded store: compiled rules in, findings out. Needs nothing of what compiles them."""
