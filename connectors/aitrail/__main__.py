"""``python -m aitrail`` is the same as the ``aitrail`` command; this is where both begin.

Nothing is imported before the ``try``: a Ctrl-C while the command line is still being loaded is no crash.
"""

INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    try:
        from aitrail.runtime.cli import main as run  # noqa: PLC0415  (see above)

        run()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()
