"""The spool: what the flow has taken in and not yet delivered, its cursors, dead letters, counters and runs."""

from aitrail.spool.outbox import Backlog
from aitrail.spool.records import (
    Cap,
    Committed,
    DeadLetter,
    DeadLetterFilter,
    Intake,
    OutboxBatch,
    Run,
    Stage,
    dead_letter_id,
)
from aitrail.spool.spool import Spool

__all__ = [
    "Backlog",
    "Cap",
    "Committed",
    "DeadLetter",
    "DeadLetterFilter",
    "Intake",
    "OutboxBatch",
    "Run",
    "Spool",
    "Stage",
    "dead_letter_id",
]
