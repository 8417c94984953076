"""What a run of a function app says about itself: one line, which the host makes a trace of. It never holds content.

Alerts (deploy/azure) and docs/deploy-azure.md are made of its fields. Metrics of our own would need an exporter in the
package; a line needs nothing.
"""

import logging

import msgspec

from aitrail.errors import AitrailError

_log = logging.getLogger("aitrail.run")


class RunError(Exception):
    """A run failed; the host sees it as a failed execution. Its text is a sentence without content."""


class Line(msgspec.Struct, kw_only=True):
    """What a run says about itself: ``outcome`` is ok, partial (more to come), held (another run polls) or failed.

    Attributes:
        cause: where and what kind of trouble, e.g. ``destination:sentinel AuthError``; few values: alerts split by it.
        detail: one sentence with the fix.
        dead: dead letters that were kept.
        waiting: events that were put aside, or that wait altogether (function ``waiting``).
        waiting_seconds: age of the oldest that waits.
        lag_seconds: how old the newest thing is that was read, while there is more to read.
    """

    aitrail: str = "run"
    function: str
    source: str = ""
    outcome: str = "ok"
    cause: str = ""
    detail: str = ""
    past_due: bool = False
    records: int = 0
    new: int = 0
    duplicates: int = 0
    skipped: int = 0
    dead: int = 0
    waiting: int = 0
    waiting_seconds: float = 0.0
    lag_seconds: float = 0.0
    milliseconds: int = 0
    cpu_milliseconds: int = 0
    verdicts: dict[str, int] = {}

    def write(self) -> None:
        """Write it, as one trace."""
        level = logging.ERROR if self.outcome == "failed" else logging.WARNING if self.cause else logging.INFO
        _log.log(level, msgspec.json.encode(self).decode())

    def blame(self, place: str, error: AitrailError) -> None:
        """Say what went wrong, the first time that something does."""
        if not self.cause:
            self.cause = f"{place} {type(error).__name__}"
            self.detail = error.sentence
