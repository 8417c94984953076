"""A source under test with a real spool behind it: run, crash between fetch and commit, start again, count.

What counts is what the outbox hands to a destination: every record once (``lost`` and ``twice`` are 0), whatever
happened to the source and to the process in between.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from aitrail.classify.contract import Text, Verdict
from aitrail.clock import Clock
from aitrail.enrich import Directory
from aitrail.event import AccessEvent, decode
from aitrail.normalize.outcome import Context
from aitrail.pipeline import Pipeline, Totals
from aitrail.ports import Ack, Budget, Source
from aitrail.privacy.keys import KeyRing
from aitrail.privacy.treat import Privacy
from aitrail.secrets import Secrets
from aitrail.spool import Committed, DeadLetter, DeadLetterFilter, Intake, Spool
from aitrail.transform import Transform

SUBSCRIPTION = "/SUBSCRIPTIONS/00000000-0000-4000-8000-000000000001/RESOURCEGROUPS/RG-AI"
APIM = f"{SUBSCRIPTION}/PROVIDERS/MICROSOFT.APIMANAGEMENT/SERVICE/ACME-APIM"
OPENAI = f"{SUBSCRIPTION}/PROVIDERS/MICROSOFT.COGNITIVESERVICES/ACCOUNTS/ACME-OPENAI"


class StillClock:
    """Time that moves only when something sleeps or the test says so."""

    def __init__(self, now: float = 1_795_428_000.0) -> None:
        self.time = now
        self.slept: list[float] = []

    def now(self) -> float:
        """Epoch seconds."""
        return self.time

    def monotonic(self) -> float:
        """The same."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.slept.append(seconds)
        self.time += seconds


class CrashError(Exception):
    """The process ended here: between what was fetched and its commit."""


class _NoClassifier:
    version = "none"

    def classify(self, texts: list[Text]) -> Verdict:
        """Judge nothing."""
        del texts
        return Verdict()


class _Report(msgspec.Struct):
    """What the outbox handed over: how often each event, and the events."""

    times: Counter[str] = msgspec.field(default_factory=Counter)
    events: list[AccessEvent] = msgspec.field(default_factory=list)


class Flow:
    """A store and the pipeline of one source; a crash throws all of it away but the store.

    Args:
        store: directory.
        make: makes the source, as a new process would.
        clock: time.
    """

    def __init__(self, store: Path, make: Callable[[], Source], clock: Clock) -> None:
        self._store, self._make, self._clock = store, make, clock
        self.report = _Report()
        self._open()

    def _open(self) -> None:
        self.source = self._make()
        self.spool = Spool.open(self._store, self._clock)
        ring = KeyRing(self._store / "keys", {}, Secrets())
        transform = Transform(_NoClassifier(), Privacy(ring), Directory(), lambda _tenant: "full")
        self.pipeline = Pipeline(
            self.source,
            spool=self.spool,
            transform=transform,
            context=Context(tenant_id="acme"),
            destinations=("store",),
            clock=self._clock,
        )

    def run(
        self,
        budget: Budget | None = None,
        *,
        flush_older_than: float | None = None,
        crash_at: int = 0,
    ) -> Totals:
        """One turn; with ``crash_at`` the process ends instead of that commit (counted from 1)."""
        commits = 0
        commit = self.spool.commit

        def counted(intake: Intake) -> Committed:
            nonlocal commits
            commits += 1
            if commits == crash_at:
                raise CrashError
            return commit(intake)

        self.spool.commit = counted  # type: ignore[method-assign]
        try:
            return self.pipeline.run(budget, flush_older_than=flush_older_than)
        finally:
            self.spool.commit = commit  # type: ignore[method-assign]

    def crash(self, budget: Budget | None = None, *, at: int = 1, flush_older_than: float | None = None) -> None:
        """One turn that ends instead of its commit number ``at``; then a new process on the same store."""
        try:
            self.run(budget, crash_at=at, flush_older_than=flush_older_than)
        except CrashError:
            pass
        else:
            raise AssertionError(f"the turn ended before commit {at}")
        self.restart()

    def restart(self) -> None:
        """End the process and start another one on the same store."""
        self.close()
        self._open()

    def close(self) -> None:
        """Give everything back."""
        close = getattr(self.source, "close", None)
        if close is not None:
            close()
        self.spool.close()

    def delivered(self) -> list[AccessEvent]:
        """Take everything out of the outbox; gives all that ever came out, and counts it in ``report``."""
        while batch := self.spool.pending("store", 10_000, 1 << 30):
            for event in batch.events:
                self.report.times[event.event_id] += 1
                self.report.events.append(decode(event.body))
            self.spool.settle(batch, Ack.all_delivered(len(batch.events)), 0.0)
        return self.report.events

    def dead(self) -> list[DeadLetter]:
        """The open dead letters."""
        return list(self.spool.deadletters(DeadLetterFilter()))

    def judge(self, expected: Iterable[str], what: str, of: Callable[[AccessEvent], str] | None = None) -> str:
        """One line of the table of faults; ``expected`` are request ids (or what ``of`` gives) that must be there once.

        Raises:
            AssertionError: something was lost, or is in the store twice.
        """
        events = self.delivered()
        wanted = set(expected)
        found = Counter((of or _request)(event) for event in events)
        lost = wanted - found.keys()
        twice = [one for one, times in self.report.times.items() if times > 1]
        repeated = [one for one, times in found.items() if times > 1 and one in wanted]
        line = (
            f"{self.source.name:14} {what:44} sent {len(wanted):5} lost {len(lost):2} "
            f"duplicated {len(twice) + len(repeated):2} dead {len(self.dead()):2}"
        )
        print(line)  # noqa: T201 - the table of the fault tests
        assert not lost, line
        assert not twice, line
        assert not repeated, line
        return line


def _request(event: AccessEvent) -> str:
    return event.request_id or event.source_event_id


def audit(number: int, time: str = "2026-11-23T09:14:05.4465902Z", category: str = "RequestResponse") -> bytes:
    """A diagnostic record of Azure OpenAI with a correlation id of its own; synthetic, in the real shape."""
    record = {
        "time": time,
        "resourceId": OPENAI,
        "category": category,
        "operationName": "ChatCompletions_Create",
        "callerIpAddress": "203.0.113.***",
        "correlationId": f"00000000-0000-4000-8000-{number:012d}",
        "durationMs": 812,
        "location": "eastus",
        "resultSignature": "200",
        "properties": {
            "objectId": "6b1f8c52-0000-4000-8000-0000000000aa",
            "modelDeploymentName": "gpt-4o-retail",
            "modelName": "gpt-4o",
            "promptTokens": 31,
            "completionTokens": 9,
        },
    }
    return json.dumps(record, separators=(",", ":")).encode()


def correlation(number: int) -> str:
    """The correlation id of ``audit(number)``, ``gateway(number)`` and ``llm(number)``."""
    return f"00000000-0000-4000-8000-{number:012d}"


def gateway(number: int, time: str = "2026-11-23T09:14:05.4465902Z") -> bytes:
    """A GatewayLogs record of API Management; synthetic, in the real shape."""
    record = {
        "time": time,
        "resourceId": APIM,
        "category": "GatewayLogs",
        "operationName": "Microsoft.ApiManagement/GatewayLogs",
        "callerIpAddress": "203.0.113.9",
        "correlationId": correlation(number),
        "durationMs": 884,
        "isRequestSuccess": True,
        "location": "East US",
        "properties": {
            "apiId": "retail-bot-api",
            "operationId": "ChatCompletions_Create",
            "responseCode": 200,
            "backendRequestHeaders": {"x-caller-upn": f"user{number}@example.com"},
            "url": "https://acme-apim.azure-api.net/openai/deployments/gpt-4o-retail/chat/completions",
        },
    }
    return json.dumps(record, separators=(",", ":")).encode()


def llm(number: int, time: str = "2026-11-23T09:14:06.3305902Z", text: str = "What is the limit on my card?") -> bytes:
    """A GatewayLlmLogs record that holds question and answer; synthetic, in the real shape."""
    record = {
        "time": time,
        "resourceId": APIM,
        "category": "GatewayLlmLogs",
        "operationName": "Microsoft.ApiManagement/GatewayLlmLogs",
        "correlationId": correlation(number),
        "location": "East US",
        "properties": {
            "requestId": f"chatcmpl-{number}",
            "sequenceNumber": 0,
            "deploymentName": "gpt-4o-retail",
            "modelName": "gpt-4o-2024-11-20",
            "promptTokens": 31,
            "completionTokens": 9,
            "totalTokens": 40,
            "requestMessages": [{"role": "user", "content": text}],
            "responseMessages": [{"role": "assistant", "content": "2,000 EUR."}],
        },
    }
    return json.dumps(record, separators=(",", ":")).encode()


def lines(records: Sequence[bytes]) -> bytes:
    """Records as a diagnostic blob holds them: one a line."""
    return b"".join(record + b"\n" for record in records)
