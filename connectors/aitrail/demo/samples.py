"""``samples/``: a small committed output of the generator. Rewrite it with ``python -m aitrail.demo.samples``."""

from pathlib import Path

from aitrail.demo.writer import DAY, SEED, Manifest, generate

EVENTS = 500


def write(directory: Path) -> Manifest:
    """Replace the generated part of ``directory`` (``logs/``, ``directory.csv``, ``manifest.json``)."""
    return generate(directory, seed=SEED, day=DAY, events=EVENTS)


if __name__ == "__main__":
    write(Path("samples"))
