"""A whole flow for tests of sources: pipeline and spool in a directory, crashes on demand, and what arrived.

A *crash* drops the pipeline before it commits and reopens the spool: what the process held in memory is gone, what was
committed is there, the source's service knows only what was acknowledged.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from aitrail.classify.contract import Classifier, Text, Verdict
from aitrail.clock import iso_ms
from aitrail.enrich import Directory
from aitrail.errors import AuthError, TransientError
from aitrail.event import AccessEvent, decode
from aitrail.normalize.outcome import Context
from aitrail.pipeline import Pipeline, Totals
from aitrail.ports import Ack, Acknowledging, Budget, Cursors, RawBatch, Source, Workload
from aitrail.privacy.keys import KeyRing
from aitrail.privacy.treat import Privacy
from aitrail.secrets import Secrets
from aitrail.spool import DeadLetter, Spool
from aitrail.transform import Transform

ACCOUNT = "111122223333"
# 2026-11-23T09:00:00Z
MORNING = 1_795_424_400.0


class ManualClock:
    """Time that moves when somebody sleeps or a test says so."""

    def __init__(self, now: float = MORNING) -> None:
        self.time = now
        self.slept = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.time

    def monotonic(self) -> float:
        """The same."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds
        self.slept += seconds


class _Plain:
    """Finds nothing."""

    version = "plain"

    def classify(self, texts: Sequence[Text]) -> Verdict:
        """Say that all is clean."""
        del texts
        return Verdict(prompt_classification="clean")


class CrashError(BaseException):
    """The process is gone."""


class _Dying:
    """A source whose process dies after some batches, or when it would acknowledge."""

    def __init__(self, source: Source, after: int, *, at_acknowledge: bool) -> None:
        self.name = source.name
        self._source = source
        self._left = after
        self._at_acknowledge = at_acknowledge

    def survey(self, cursors: Cursors) -> Workload:
        return self._source.survey(cursors)

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        for batch in self._source.fetch(cursors, budget):
            if self._left <= 0 and not self._at_acknowledge:
                raise CrashError
            self._left -= 1
            yield batch
        if not self._at_acknowledge:
            raise CrashError

    def check(self) -> list[str]:
        return self._source.check()

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        return self._source.reread(origin, position, end, index)

    def acknowledge(self, receipts: Sequence[str]) -> None:
        del receipts
        raise CrashError


class Flow:
    """Runs sources into one spool and keeps what came out.

    Attributes:
        arrived: event_id -> how often it was given to the destination.
        events: all of them, in order.
    """

    def __init__(self, directory: Path, clock: ManualClock, classifier: Classifier | None = None) -> None:
        """Open a spool in ``directory``; without ``classifier`` everything is clean."""
        self._directory = directory
        self._classifier: Classifier = classifier or _Plain()
        self.clock = clock
        self.arrived: Counter[str] = Counter()
        self.events: list[AccessEvent] = []
        self.totals = Totals()
        self.spool = Spool.open(directory, clock)

    def run(self, source: Source, budget: Budget | None = None) -> Totals:
        """Let ``source`` be read until it has nothing more; keeps what arrived, also when the source raises."""
        try:
            return self._pipeline(source).run(budget)
        finally:
            self.collect()

    def crash(self, source: Source, after: int = 1, *, at_acknowledge: bool = False) -> None:
        """Read, and die after ``after`` batches before the commit (or just before the service is told)."""
        if at_acknowledge:
            assert isinstance(source, Acknowledging)
        try:
            self._pipeline(_Dying(source, after, at_acknowledge=at_acknowledge)).run()
        except CrashError:
            pass
        else:
            assert not at_acknowledge, "there was nothing to acknowledge"
        self.spool.close()
        self.spool = Spool.open(self._directory, self.clock)
        self.collect()

    def attempts(self, make: Callable[[], Source], most: int = 10, pause: float = 60.0) -> int:
        """Run a source again and again, as the daemon would, until a turn goes well; gives how many it took."""
        for number in range(1, most + 1):
            try:
                self.run(make())
            except (TransientError, AuthError):
                self.clock.time += pause
            else:
                return number
        raise AssertionError(f"no turn of {most} went well")

    def collect(self) -> None:
        """Take what waits for the destination."""
        while batch := self.spool.pending("store", 10_000, 1 << 30):
            for event in batch.events:
                self.arrived[event.event_id] += 1
                self.events.append(decode(event.body))
            self.spool.settle(batch, Ack.all_delivered(len(batch.events)), self.clock.now())

    def ids(self) -> set[str]:
        """Upstream ids of what arrived."""
        return {event.source_event_id for event in self.events}

    def verdict(self, expected: Sequence[str], label: str) -> str:
        """One line of the table: what was lost and what arrived twice. Both must be nothing."""
        ids = Counter(event.source_event_id for event in self.events)
        lost = [one for one in expected if one not in ids]
        again = sum(count - 1 for count in ids.values())
        line = f"{label:<44} events {len(expected):>6}  lost {len(lost)}  duplicated {again}"
        assert not lost, line
        assert not again, line
        return line

    def dead(self) -> list[DeadLetter]:
        """Open dead letters."""
        return self.spool.deadletters()

    def attested(self) -> dict[str, str]:
        """Origin -> verdict."""
        return {str(row[0]): str(row[1]) for row in self.spool.database.rows("SELECT origin, verdict FROM attestation")}

    def close(self) -> None:
        """Close the spool."""
        self.spool.close()

    def _pipeline(self, source: Source) -> Pipeline:
        ring = KeyRing(self._directory / "keys", {}, Secrets())
        transform = Transform(self._classifier, Privacy(ring), Directory(), lambda _tenant: "full")
        return Pipeline(
            source, spool=self.spool, transform=transform, context=Context(tenant_id="acme"), destinations=("store",),
            clock=self.clock,
        )  # fmt: skip


def trail_record(number: int, time: float, label: str = "e", **fields: Any) -> dict[str, Any]:
    """A CloudTrail record of a Bedrock call; synthetic, with the values of AWS's documentation."""
    return {
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "AssumedRole",
            "principalId": "AROACKCEVSQ6C2EXAMPLE:mateo",
            "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/Analyst/mateo",
            "accountId": ACCOUNT,
        },
        "eventTime": iso_ms(int(time)).replace(".000", ""),
        "eventSource": "bedrock.amazonaws.com",
        "eventName": "InvokeModel",
        "awsRegion": "us-east-1",
        "sourceIPAddress": "203.0.113.7",
        "userAgent": "example/1.0",
        "requestParameters": {"modelId": "anthropic.claude-3-haiku-20240307-v1:0"},
        "responseElements": None,
        "requestID": f"r-{label}-{number}",
        "eventID": event_id(number, label),
        "readOnly": True,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": ACCOUNT,
        "eventCategory": "Management",
        **fields,
    }


def event_id(number: int, label: str = "e") -> str:
    """The upstream id of ``trail_record(number, ..., label)``."""
    return f"{label}-{number:08d}"


def invocation_record(number: int, time: float, **sides: Any) -> dict[str, Any]:
    """A record of Bedrock's invocation log; synthetic."""
    return {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": iso_ms(int(time)).replace(".000", ""),
        "accountId": ACCOUNT,
        "identity": {"arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/Analyst/mateo"},
        "region": "us-east-1",
        "requestId": f"call-{number:08d}",
        "operation": "InvokeModel",
        "modelId": "anthropic.claude-3-haiku-20240307-v1:0",
        "input": {
            "inputContentType": "application/json",
            "inputBodyJson": {"messages": [{"role": "user", "content": f"question {number}"}]},
            "inputTokenCount": 5,
        },
        "output": {
            "outputContentType": "application/json",
            "outputBodyJson": {"content": [{"type": "text", "text": "an answer"}], "stop_reason": "end_turn"},
            "outputTokenCount": 3,
        },
        **sides,
    }


def json_line(value: Any) -> bytes:
    """One record as it is written."""
    return json.dumps(value, separators=(",", ":")).encode()
