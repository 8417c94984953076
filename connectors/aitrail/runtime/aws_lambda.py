"""AWS Lambda: ``aitrail.runtime.aws_lambda.handler`` takes every kind of event and tells them apart by their shape.

- A schedule: polled sources (LookupEvents, log groups, buckets, gateways) are read; cursors and leases in DynamoDB.
- SQS: objects of CloudTrail and Bedrock that messages name; what is not settled is in ``batchItemFailures``.
- Kinesis and CloudWatch Logs subscriptions, EventBridge, SNS and S3 themselves: settled, or the invocation fails, so
  that the platform sends the event again and in the end keeps it in the failure destination.

Nothing is confirmed before every destination has given its final verdict, or a dead letter lies in S3. A run ends by
the remaining time that Lambda tells, never by a signal: at the margin what is under way is given back.

Environment: ``AITRAIL_CONFIG`` and ``AITRAIL_CONFIG_1`` ... hold TOML that is put behind the packaged ``aitrail.toml``;
``AITRAIL_STATE_TABLE``, ``AITRAIL_DEAD_LETTER_BUCKET``; ``AITRAIL_STACK`` (a dimension of the metrics);
``AITRAIL_MARGIN_SECONDS`` (default 10); ``AITRAIL_POLL``: names of the sources that a schedule polls, by commas.
"""

import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct, field

from aitrail.config import Config, SourceConfig, parse
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.pipeline import Totals
from aitrail.ports import Budget, Lease
from aitrail.registry import source_settings
from aitrail.runtime.scheduled import telling
from aitrail.runtime.scheduled.aws_events import BY_ITEMS, Event, GivenBackError, Reader, answer, told_apart
from aitrail.runtime.scheduled.aws_state import BucketDeadLetters, ObjectMemory, Table, TableCursors, TableLeases
from aitrail.runtime.scheduled.direct import (
    NO_CURSORS,
    DurableCursors,
    GoesOn,
    Left,
    Outlet,
    Report,
    Trouble,
    poll,
    push,
)
from aitrail.runtime.scheduled.parts import Parts, Pushed, RunClock, make_parts
from aitrail.secrets import Secrets
from aitrail.sources._aws_calls import Access, Aws
from aitrail.sources._aws_settings import CloudWatchSettings, S3SqsSettings
from aitrail.sources._meter import Meter
from aitrail.sources._s3_batches import Notes, Objects
from aitrail.sources._s3_bodies import Bodies
from aitrail.sources._s3_keys import describe
from aitrail.sources._s3_objects import ReadAhead
from aitrail.spool.states import SourceState

_POLLED = frozenset(
    {"cloudtrail_lookup", "cloudwatch_logs", "s3", "openai_audit", "anthropic_compliance", "cloudflare_ai",
     "databricks_ai", "log_analytics", "azure_blobs"}
)  # fmt: skip
# Lambda ends a run at its time-out, so a lease has to outlive it by no more than two clocks may differ.
_CLOCKS_DIFFER = 5.0


class LambdaContext(Protocol):
    """What Lambda tells of an invocation."""

    aws_request_id: str
    function_name: str

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation is ended."""
        ...


class Worker:
    """One execution environment: what is made once and used by all its invocations."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        """Read the configuration; raises ``ConfigError``."""
        self.clock = RunClock()
        self.config = read_config(environment, folder)
        self.margin = _seconds(environment.get("AITRAIL_MARGIN_SECONDS", "10"))
        self.stack = environment.get("AITRAIL_STACK", "aitrail")
        self.polled = tuple(one for one in environment.get("AITRAIL_POLL", "").split(",") if one)
        self._environment = environment
        self._aws = Aws(Access(request_seconds=10.0), self.clock)
        self._identities: dict[str, Aws] = {}
        self._parts: Parts | None = None

    @property
    def parts(self) -> Parts:
        """Made when first needed: an invocation without work asks for no secret."""
        if self._parts is None:
            self._parts = make_parts(self.config, self.clock, Secrets())
        return self._parts

    @property
    def region(self) -> str:
        """Where this function runs."""
        return self._aws.region("")

    def identity(self, name: str, access: Access) -> Aws:
        """Clients for what the source ``name`` reads; made once."""
        return self._identities.setdefault(name, Aws(access, self.clock))

    def table(self) -> Table:
        """The table of cursors, leases and objects."""
        return Table(self._aws, self.region, self._needed("AITRAIL_STATE_TABLE"))

    def dead_letters(self) -> BucketDeadLetters:
        """Where dead letters go."""
        return BucketDeadLetters(self._aws, self.region, self._needed("AITRAIL_DEAD_LETTER_BUCKET"))

    def _needed(self, name: str) -> str:
        value = self._environment.get(name, "")
        if not value:
            raise ConfigError(
                "is not set", where=f"environment variable {name}", hint="deploy/aws/template.yaml sets it"
            )
        return value


class Said(Struct):
    """What the runs of one invocation add up to, for its line."""

    totals: Totals = field(default_factory=Totals)
    dead: int = 0
    given_back: int = 0
    newest: float = 0.0
    troubles: list[Trouble] = []
    notes: list[str] = []
    sources: list[str] = []

    def add(self, report: Report, outlet: Outlet, state: SourceState, name: str) -> None:
        """Add one run."""
        self.totals.records += report.totals.records
        self.totals.new += report.totals.new
        self.totals.duplicates += report.totals.duplicates
        self.totals.rejected.update(report.totals.rejected)
        self.totals.skipped.update(report.totals.skipped)
        self.dead += outlet.dead
        self.given_back += len(report.given_back)
        self.newest = max(self.newest, state.newest_event)
        known = {(one.place, str(one.error)) for one in report.troubles}
        self.troubles += report.troubles
        self.troubles += [one for one in outlet.troubles if (one.place, str(one.error)) not in known]
        self.sources.append(name)


_workers: list[Worker] = []


def handler(event: Any, context: LambdaContext) -> dict[str, Any]:
    """Lambda's entry.

    Raises:
        GivenBackError: an event that is not asked about item by item is not settled: it has to come again.
        AitrailError: the function is not set up; nothing was read, everything comes again.
    """
    what = told_apart(event)
    said = Said()
    began = context.get_remaining_time_in_millis()
    clock = RunClock()
    try:
        if not _workers:
            _workers.append(Worker(os.environ, Path(os.environ.get("LAMBDA_TASK_ROOT", "."))))
        worker = _workers[0]
        clock = worker.clock
        clock.left = lambda: context.get_remaining_time_in_millis() / 1_000 - worker.margin
        return _DO.get(what.kind, _push)(worker, what, said)
    except AitrailError as error:
        if not said.troubles:
            said.troubles.append(Trouble("setup", error))
        raise
    except BaseException as error:
        said.troubles.append(telling.bug(error))
        raise
    finally:
        _tell(said, what, context, clock, began)


def _tell(said: Said, what: Event, context: LambdaContext, clock: RunClock, began: int) -> None:
    """Write the line; to the stream that Lambda keeps."""
    now = clock.now()
    totals = said.totals
    numbers = {
        "Records": float(totals.records), "Events": float(totals.new), "Duplicates": float(totals.duplicates),
        "DeadLetters": float(said.dead), "GivenBack": float(said.given_back),
        "Duration": float(began - context.get_remaining_time_in_millis()),
    }  # fmt: skip
    if said.newest:
        numbers["Lag"] = max(0.0, now - said.newest)
    stack = _workers[0].stack if _workers else os.environ.get("AITRAIL_STACK", "aitrail")
    names = {"Stack": stack, "Function": context.function_name}
    text = telling.line(
        numbers, said.troubles, names, now, kind=what.kind, request_id=context.aws_request_id, sources=said.sources,
        rejected=dict(totals.rejected), skipped=dict(totals.skipped), notes=said.notes[:20],
    )  # fmt: skip
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


# --- what is asked for


def _nothing(worker: Worker, what: Event, said: Said) -> dict[str, Any]:
    """An empty event, or a probe."""
    del worker, said
    return {"batchItemFailures": []} if isinstance(what.body, dict) and "Records" in what.body else {}


def _unknown(worker: Worker, what: Event, said: Said) -> dict[str, Any]:
    """Nobody knows what it is: the platform keeps it in the failure destination."""
    del worker, what
    hint = "this function takes schedules, SQS, Kinesis, CloudWatch Logs, EventBridge, SNS and S3 events"
    error = ConfigError("the event is of no known shape", hint=hint)
    said.troubles.append(Trouble("source", error))
    raise error


def _push(worker: Worker, what: Event, said: Said) -> dict[str, Any]:
    """Everything that is handed over."""
    parts = worker.parts
    name, settings = _section(worker.config, what)
    state = SourceState()
    notes = Notes()
    reader, cursors = _reader(worker, name, settings, what, notes)
    outlet = Outlet(parts.routes, worker.dead_letters(), cursors, worker.clock, worker.clock.left)
    items = reader.items(what)
    try:
        report = push(parts.pipeline(Pushed(name), outlet, settings, state), items, worker.clock.left)
    finally:
        said.notes += notes.lines
    said.add(report, outlet, state, name)
    if what.kind in BY_ITEMS:
        return answer(what.kind, report.given_back, items)
    if report.given_back:
        causes = "; ".join(dict.fromkeys(telling.sentence(one) for one in said.troubles))
        raise GivenBackError(causes or "the time of this run is over", hint="it is sent again")
    return {"events": report.totals.new, "dead_letters": outlet.dead}


def _poll(worker: Worker, what: Event, said: Said) -> dict[str, Any]:
    """Every polled source, the one that waited longest for its turn first: all get an equal share of the time."""
    del what
    names = list(worker.polled) or [one for one, settings in worker.config.sources.items() if settings.type in _POLLED]
    for name in names:
        if name not in worker.config.sources:
            known = ", ".join(worker.config.sources) or "none"
            raise ConfigError(f"there is no source {name!r}", where="AITRAIL_POLL", hint=f"known: {known}")
    at = int(worker.clock.now() // 60) % len(names) if names else 0
    leases = TableLeases(worker.table(), worker.clock, uuid.uuid4().hex)
    done: dict[str, Any] = {}
    for number, name in enumerate((*names[at:], *names[:at])):
        share = worker.clock.left() / (len(names) - number)
        done[name] = _poll_one(worker, name, share, leases, said) if share > 0 else "no time"
    return {"sources": done}


def _poll_one(worker: Worker, name: str, seconds: float, leases: TableLeases, said: Said) -> str:
    """One source, in its share of the time; what is wrong with it does not stand in the way of the others."""
    clock = worker.clock
    end = clock.monotonic() + seconds
    try:
        lease = leases.acquire(name, clock.left() + worker.margin + _CLOCKS_DIFFER)
    except (AuthError, TransientError) as error:
        said.troubles.append(Trouble("state", error))
        return "failed"
    if lease is None:
        said.sources.append(f"{name} (another run reads it)")
        return "leased"
    try:
        return _read(worker, name, lease, lambda: min(end - clock.monotonic(), clock.left()), said)
    except ConfigError as error:
        said.troubles.append(Trouble("source", error))
        return "failed"
    finally:
        try:
            leases.release([lease])
        except (AuthError, TransientError) as error:
            said.troubles.append(Trouble("state", error))


def _read(worker: Worker, name: str, lease: Lease, left: Left, said: Said) -> str:
    parts = worker.parts
    state = SourceState()
    cursors = TableCursors(worker.table(), name, worker.clock, lease)
    outlet = Outlet(parts.routes, worker.dead_letters(), cursors, worker.clock, left)
    source = parts.source(name)
    try:
        list(cursors.items())  # now: a table that does not answer is no fault of the source
        report = poll(parts.pipeline(source, outlet, worker.config.sources[name], state), left)
    except (AuthError, TransientError) as error:
        report = Report(troubles=[Trouble("state", error)], complete=False)
    said.notes += list(getattr(source, "notes", ()))
    said.add(report, outlet, state, name)
    return "complete" if report.complete else "goes on next time" if not report.troubles else "failed"


_DO = {"poll": _poll, "nothing": _nothing, "unknown": _unknown}


# --- configuration


def read_config(environment: Mapping[str, str], folder: Path) -> Config:
    """The packaged file, if there is one, and behind it what the environment says."""
    path = folder / "aitrail.toml"
    texts = [path.read_text(encoding="utf-8")] if path.is_file() else []
    names = sorted((one for one in environment if one.startswith("AITRAIL_CONFIG")), key=lambda one: (len(one), one))
    texts += [environment[one] for one in names]
    if not texts:
        hint = "package one (aitrail package lambda --config aitrail.toml), or set AITRAIL_CONFIG"
        raise ConfigError("there is no configuration", where=str(path), hint=hint)
    return parse("\n".join(texts), path)


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        raise ConfigError("is no number of seconds", where="AITRAIL_MARGIN_SECONDS", hint="write 10") from None


def _section(config: Config, what: Event) -> tuple[str, SourceConfig]:
    """The section whose settings hold for what was handed over."""
    wanted = {"queue": "s3_sqs", "objects": "s3_sqs", "logs": "cloudwatch_logs", "stream": "cloudwatch_logs"}
    kind = wanted.get(what.kind)
    found = {name: one for name, one in config.sources.items() if one.type == kind}
    if what.kind == "queue":
        queue = str(what.body["Records"][0].get("eventSourceARN") or "").replace(":", "/")
        for name, one in found.items():
            urls = one.options.get("queue_urls", ())
            if any(queue.endswith("/".join(str(url).rstrip("/").split("/")[-2:])) for url in urls):
                return name, one
    if found:
        return next(iter(found.items()))
    if kind == "s3_sqs":
        hint = 'add [sources.NAME] with type = "s3_sqs", queue_urls and buckets'
        raise ConfigError("no source says which buckets may be read", where="sources", hint=hint)
    return {"urgent": "eventbridge"}.get(what.kind, "subscription"), SourceConfig()


def _reader(
    worker: Worker, name: str, settings: SourceConfig, what: Event, notes: Notes
) -> tuple[Reader, DurableCursors]:
    """What reads the objects and bodies that an event of this kind may name."""
    region = worker.region
    clock = worker.clock
    if what.kind not in ("queue", "objects"):
        given = source_settings(name, settings, worker.config) if settings.type == "cloudwatch_logs" else None
        buckets: Sequence[str] = given.body_buckets if isinstance(given, CloudWatchSettings) else ()
        most = given.body_bytes if isinstance(given, CloudWatchSettings) else 0
        aws = worker.identity(name, Access.of(given) if given is not None else Access())
        bodies = Bodies(aws, region, buckets, most, notes)
        return Reader(lambda _one: iter(()), (), (), notes, bodies.resolve, clock.now), NO_CURSORS
    known = source_settings(name, settings, worker.config)
    assert isinstance(known, S3SqsSettings)
    aws = worker.identity(name, Access.of(known, known.role_arn))
    region = known.region or region
    _, key = worker.parts.ring.active("default")
    memory = ObjectMemory(worker.table(), name, clock, key)
    objects = Objects(aws, region, known, clock, notes)
    ahead = ReadAhead(aws, lambda _one: region, 1)

    def read(one: Any) -> Any:
        if describe(one.key).kind in ("skipped", "digest"):
            return
        meter = Meter(Budget(seconds=clock.left()), clock)
        done = yield from objects.batches(one, ahead.open(one), memory, meter)
        if not done:
            notes(f"{one.origin}: larger than one run; the next one goes on where this one ends")
            raise GoesOn(one.origin)

    return Reader(read, known.buckets, known.prefixes, notes, lambda records: records, clock.now), memory
