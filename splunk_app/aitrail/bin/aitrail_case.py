"""Alert action: open a case."""

# ruff: noqa: INP001  (Splunk runs the scripts of a folder, no package)
import sys

from aitrail_response import main

if __name__ == "__main__":
    sys.exit(main("case", ("title", "severity"), sys.argv, sys.stdin))
