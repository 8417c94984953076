"""``python -m aitrail`` is the same as the ``aitrail`` command."""

from aitrail.runtime.cli import main

if __name__ == "__main__":
    main()
