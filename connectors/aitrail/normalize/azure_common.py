"""What the Azure normalizers share: times, resource ids, addresses, statuses and the table of operations.

Facts: Azure Monitor "Resource logs" (common schema), Azure OpenAI data plane operation ids, resource provider
operations. Pure and total; the table is read once, at import.
"""

import hashlib
import tomllib
from functools import lru_cache
from importlib import resources
from typing import Any

import msgspec

from aitrail.event import ActionKind, OutcomeStatus
from aitrail.normalize.common import parse_time, split_address

Number = int | float | str | None

# Longer than any call: ticks that are further apart than a day belong to a broken clock.
_MAX_CALL_MS = 86_400_000.0
_TICKS_2000 = 630_822_816_000_000_000  # .NET ticks (100 ns since year 1) at 2000-01-01: earlier ones are no time


class Operation(msgspec.Struct, frozen=True, gc=False):
    """What an operation is. ``read_only`` is None when its name does not tell."""

    kind: ActionKind
    resource: str
    read_only: bool | None


class _Row(msgspec.Struct, frozen=True):
    kind: ActionKind
    resource: str
    read_only: bool | None = None
    names: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


class _Table(msgspec.Struct, frozen=True):
    operation: tuple[_Row, ...]
    rule: tuple[_Row, ...]
    verbs: dict[str, tuple[str, ...]]


def _load_table() -> _Table:
    text = resources.files("aitrail.normalize").joinpath("tables/azure_operations.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), _Table)


_TABLE = _load_table()
_EXACT = {name: row for row in _TABLE.operation for name in row.names}


def _reads(name: str) -> bool | None:
    """Whether the verb of an operation name only reads: its last path part, or the words around underscores."""
    words = name.replace("/", "_").replace(".", "_").split("_")
    ends = (words[-1], words[0])
    if any(word.startswith(_TABLE.verbs["read"]) for word in ends):
        return True
    return False if any(word.startswith(_TABLE.verbs["write"]) for word in ends) else None


@lru_cache(maxsize=4096)
def operation_of(name: str) -> Operation:
    """Look up an operation by its lower-case name; what the table does not know is administration."""
    row = _EXACT.get(name) or next((row for row in _TABLE.rule if all(word in name for word in row.words)), None)
    read_only = row.read_only if row is not None and row.read_only is not None else _reads(name)
    if row is None:
        return Operation("admin", "", read_only)
    if row.kind == "guardrail" and read_only:  # looking at the guard is not touching it
        return Operation("admin", row.resource, read_only)
    if row.kind == "inference" and read_only is True:  # listing or fetching stored completions, runs, batches
        return Operation("data", row.resource, read_only)
    return Operation(row.kind, row.resource, False if row.kind == "inference" else read_only)


# HTTP status -> outcome. A 400 stays an error here: a resource log holds no filter verdict, so nothing is guessed.
_OUTCOMES: dict[int, OutcomeStatus] = {401: "denied", 403: "denied", 407: "denied", 429: "throttled"}
_RESULT_TYPES: dict[str, OutcomeStatus] = {
    "success": "success",
    "succeeded": "success",
    "failure": "error",
    "failed": "error",
    "clienterror": "error",
    "servererror": "error",
}
# What ``resultSignature`` of control plane records ends in (``Failed.Forbidden``, ``Succeeded.OK``).
_SIGNATURES: dict[str, int] = {
    "ok": 200,
    "created": 201,
    "accepted": 202,
    "nocontent": 204,
    "badrequest": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "notfound": 404,
    "conflict": 409,
    "toomanyrequests": 429,
    "internalservererror": 500,
    "serviceunavailable": 503,
}


def outcome_of_status(status: int | None) -> OutcomeStatus:
    """Outcome of an HTTP status; unknown when there is none."""
    if status is None:
        return "unknown"
    if 200 <= status < 300:
        return "success"
    found = _OUTCOMES.get(status)
    if found is not None:
        return found
    return "error" if 400 <= status < 600 else "unknown"


@lru_cache(maxsize=1024)
def result_of(signature: str, result_type: str) -> tuple[int | None, OutcomeStatus]:
    """HTTP status and outcome of ``resultSignature`` (a status, or ``Failed.Forbidden``) and ``resultType``."""
    text = signature.strip()
    status = int(text) if len(text) == 3 and text.isascii() and text.isdigit() else None
    if status is None:
        status = _SIGNATURES.get(text.rpartition(".")[2].lower())
    outcome = outcome_of_status(status)
    if outcome == "unknown":
        outcome = _RESULT_TYPES.get(result_type.strip().lower(), "unknown")
    return status, outcome


# Fractions as Azure writes whole milliseconds, with seven decimals.
_MILLISECONDS = {f"{number:03d}0000Z": f"{number:03d}Z" for number in range(1000)}


@lru_cache(maxsize=8192)
def _second(text: str) -> str:
    """``2024-04-08T12:23:02.`` when it is a second in range, else empty."""
    stamp = parse_time(f"{text[:19]}Z")[0] if text.endswith(".") else ""
    return stamp[:20]


def azure_time(text: str) -> tuple[str, str]:
    """Canonical time of an Azure time, or ``("", code)``; a time without zone is ``time_no_zone``.

    Azure writes UTC with seven decimals (``2024-04-08T12:23:02.4350000Z``), in resource logs mostly whole milliseconds:
    then the second is taken from a cache. Every other form goes the long way.
    """
    milliseconds = _MILLISECONDS.get(text[20:])
    if milliseconds is not None:
        second = _second(text[:20])
        if second:
            return second + milliseconds, ""
    return parse_time(text)


def latency_of(ticks_from: Number, ticks_to: Number, duration_ms: Number) -> tuple[float | None, bool]:
    """Milliseconds of a call, from .NET ticks where they are plausible, else from ``durationMs``.

    ``durationMs`` can be negative or wrong, so the ticks win.

    Returns:
        the latency or None, and whether the record stated one that cannot be right.
    """
    if type(ticks_from) is not int or type(ticks_to) is not int:
        ticks_from, ticks_to = whole(ticks_from), whole(ticks_to)
    if ticks_from and ticks_to and ticks_to >= ticks_from > _TICKS_2000:
        elapsed = (ticks_to - ticks_from) / 10_000
        if elapsed <= _MAX_CALL_MS:
            return elapsed, False
    stated = decimal(duration_ms)
    if stated is None:
        return None, False
    return (stated, False) if 0 <= stated <= _MAX_CALL_MS else (None, True)


def whole(value: Any) -> int | None:
    """An integer from a JSON number or its text; None when it is none."""
    if type(value) is int:
        return value
    if isinstance(value, float):
        return int(value) if abs(value) < 2**63 else None
    if isinstance(value, str) and 0 < len(value) < 20 and value.isascii() and value.lstrip("-").isdigit():
        try:
            return int(value)
        except ValueError:
            return None
    return None


def decimal(value: Any) -> float | None:
    """A finite float from a JSON number or its text; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and (len(value) > 32 or not value.isascii()):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e18 else None


@lru_cache(maxsize=16384)
def address_of(text: str) -> tuple[str, str, str]:
    """``(src_ip, src_host, flag)``: Azure OpenAI masks the last octet (``81.2.69.***``), which is no address."""
    src_ip, src_host = split_address(text)
    if not src_host:
        return src_ip, "", ""
    return "", src_host, "src_ip_masked" if "*" in src_host else "src_ip_invalid"


class Resource(msgspec.Struct, frozen=True, gc=False):
    """Parts of an Azure resource id, lower-case: Azure writes ids in upper, lower and mixed case."""

    subscription: str = ""
    provider: str = ""
    type: str = ""
    name: str = ""


@lru_cache(maxsize=8192)
def resource_of(resource_id: str) -> Resource:
    """Split ``/SUBSCRIPTIONS/{id}/RESOURCEGROUPS/{rg}/PROVIDERS/{namespace}/{type}/{name}...``; missing parts empty."""
    parts = resource_id.strip("/").lower().split("/")
    subscription = parts[1] if len(parts) > 1 and parts[0] == "subscriptions" else ""
    if "providers" not in parts:
        return Resource(subscription)
    after = parts[len(parts) - parts[::-1].index("providers") :]  # an extension resource names its own provider last
    return Resource(
        subscription,
        after[0] if after else "",
        "/".join(after[:2]),
        after[2] if len(after) > 2 else "",
    )


@lru_cache(maxsize=1024)
def region_of(text: str) -> str:
    """Region in its short form: ``East US`` and ``eastus`` are the same place."""
    return text.lower().replace(" ", "")


def digest_of(*parts: str) -> str:
    """Identity of a record that has no id of its own: 128 bits over what tells it from others."""
    key = "\x00".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(key, digest_size=16).hexdigest()
