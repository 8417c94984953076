"""What else is shipped besides accesses: findings of rules, the collector's own health, checkpoints of the ledger.

Each is one flat JSON object whose first field ``stream`` says what it is (``EncodedEvent.stream`` reads it from there).
They hold no content: a finding names the events that are its evidence. Times are canonical (UTC, ms).
"""

import hashlib
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from aitrail.ports import EncodedEvent

Stream = Literal["access", "finding", "health", "checkpoint"]
STREAMS: tuple[Stream, ...] = get_args(Stream)
Severity = Literal["informational", "low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
HealthStatus = Literal["ok", "late", "failing", "paused"]


class Finding(Struct, kw_only=True, omit_defaults=True, gc=False, tag_field="stream", tag="finding"):
    """What a rule found: the answer to "what happened, who, how bad, and which events show it"."""

    event_id: Annotated[str, Meta(description="Identity of the finding: the same finding made again has the same.")]
    timestamp: Annotated[str, Meta(description="When the last event of its evidence happened.")]
    tenant_id: Annotated[str, Meta(description="The tenant that it concerns.")]
    rule_id: Annotated[str, Meta(description="Id of the rule.")]
    rule_name: Annotated[str, Meta(description="Its title.")] = ""
    rule_version: Annotated[str, Meta(description="Version or hash of the rule's text.")] = ""
    severity: Annotated[Severity, Meta(description="informational, low, medium, high or critical.")]
    first_seen: Annotated[str, Meta(description="When the first event of its evidence happened.")] = ""
    detected_at: Annotated[str, Meta(description="When the rule ran.")] = ""
    user_id: Annotated[str, Meta(description="The person or service that it is about.")] = ""
    entities: Annotated[tuple[str, ...], Meta(description="Everything that it is about, each as kind:value.")] = ()
    evidence_ids: Annotated[tuple[str, ...], Meta(description="event_id of the events that show it.")] = ()
    evidence_count: Annotated[int, Meta(description="How many events show it, also those that are not listed.")] = 0
    atlas: Annotated[tuple[str, ...], Meta(description="MITRE ATLAS techniques with the edition.")] = ()
    owasp: Annotated[tuple[str, ...], Meta(description="OWASP LLM Top 10 ids with the edition.")] = ()
    tags: Annotated[tuple[str, ...], Meta(description="Other tags of the rule.")] = ()
    risk_score: Annotated[int | None, Meta(description="Risk, 0 to 100.")] = None
    summary: Annotated[str, Meta(description="One sentence of names and numbers, never of content.")] = ""


class Health(Struct, kw_only=True, omit_defaults=True, gc=False, tag_field="stream", tag="health"):
    """How one source or destination of a collector is doing: the proof that silence is silence."""

    event_id: Annotated[str, Meta(description="Identity: collector, part and time.")]
    timestamp: Annotated[str, Meta(description="When it was looked at.")]
    collector: Annotated[str, Meta(description="Which collector says so.")]
    kind: Annotated[str, Meta(description="source, destination, outbox or ledger.")]
    name: Annotated[str, Meta(description="Name of the source or destination; of the ledger: its origin.")]
    status: Annotated[HealthStatus, Meta(description="ok, late, failing or paused.")] = "ok"
    reason: Annotated[str, Meta(description="Why it is not ok, in words that hold no secret and no content.")] = ""
    newest_event: Annotated[str, Meta(description="Time of the newest record read from this source.")] = ""
    lag_seconds: Annotated[float | None, Meta(description="Age of that record.")] = None
    records: Annotated[int | None, Meta(description="Records read since the store was made.")] = None
    events: Annotated[int | None, Meta(description="New events taken in since the collector was started.")] = None
    rejected: Annotated[int | None, Meta(description="Dead letters, ever, of this part.")] = None
    unproven: Annotated[
        int | None, Meta(description="Objects of the source whose integrity check failed in the last 24 hours.")
    ] = None
    filtered: Annotated[int | None, Meta(description="Events that the destination's condition left out, ever.")] = None
    backlog_events: Annotated[int | None, Meta(description="Events that wait for the destination.")] = None
    backlog_bytes: Annotated[int | None, Meta(description="Their bytes.")] = None
    oldest_seconds: Annotated[float | None, Meta(description="How long the oldest of them waits.")] = None
    delivered: Annotated[int | None, Meta(description="Events delivered since the collector was started.")] = None


class Checkpoint(Struct, kw_only=True, omit_defaults=True, gc=False, tag_field="stream", tag="checkpoint"):
    """A signed state of the ledger, shipped so that a system that others administer keeps it as a witness."""

    event_id: Annotated[str, Meta(description="Identity: origin and size.")]
    timestamp: Annotated[str, Meta(description="When it was signed.")]
    tenant_id: Annotated[str, Meta(description="The tenant whose ledger it is.")]
    origin: Annotated[str, Meta(description="The ledger's name (C2SP tlog-checkpoint, first line).")]
    size: Annotated[int, Meta(description="Number of entries.")]
    root: Annotated[str, Meta(description="Root hash, base64.")]
    note: Annotated[str, Meta(description="The whole signed note.")] = ""


Record = Finding | Health | Checkpoint
KINDS: dict[str, type[Struct]] = {"finding": Finding, "health": Health, "checkpoint": Checkpoint}

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


def encoded(record: Record) -> EncodedEvent:
    """Give what the outbox takes."""
    return EncodedEvent(record.event_id, record.timestamp, _encode(record))


def decoded(event: EncodedEvent) -> Record:
    """Read a record back; raises ``ValueError`` when the bytes are none, or one of another identity."""
    try:
        record: Record = _decode(event.body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError("no record of a stream") from error
    if record.event_id != event.event_id:
        raise ValueError("another identity")
    return record


def make_id(*parts: str) -> str:
    """Derive an identity: BLAKE2b-128 over the parts, each length-safe; never one of an access."""
    text = "\x00".join(f"{len(part)}:{part}" for part in ("aitrail-stream", *parts))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def example_finding() -> Finding:
    """Build a finding in which every field is set."""
    return Finding(
        event_id=finding_id("acme", "aitrail-0001", "user:ines.moreau", "2026-11-23T09"),
        timestamp="2026-11-23T09:14:05.120Z",
        tenant_id="acme",
        rule_id="5b8f3a1e-0000-4000-8000-000000000001",
        rule_name="Prompt injection that went through",
        rule_version="1",
        severity="high",
        first_seen="2026-11-23T09:10:00.000Z",
        detected_at="2026-11-23T09:15:00.000Z",
        user_id="ines.moreau",
        entities=("user:ines.moreau", "ip:203.0.113.9", "model:gpt-4o"),
        evidence_ids=("5f0c6a0e9d1b4c2f8a7e3d2c1b0a9f8e",),
        evidence_count=1,
        atlas=("aml.t0051.000@5.6.0",),
        owasp=("llm01:2025",),
        tags=("live",),
        risk_score=80,
        summary="1 prompt injection of tier high was answered.",
    )


def finding_id(tenant: str, rule: str, entity: str, window: str) -> str:
    """Identity of a finding: the same rule over the same entity in the same window finds the same thing."""
    return make_id("finding", tenant, rule, entity, window)
