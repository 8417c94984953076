"""What runs aitrail: the command line and the daemon."""
