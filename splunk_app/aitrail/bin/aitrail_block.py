"""Alert action: block a credential or a user."""

# ruff: noqa: INP001  (Splunk runs the scripts of a folder, no package)
import sys

from aitrail_response import main

if __name__ == "__main__":
    sys.exit(main("block", ("kind", "value", "reason"), sys.argv, sys.stdin))
