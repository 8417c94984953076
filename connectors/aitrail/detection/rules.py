"""Compiled rules, as ``content/compiled/duckdb.json`` carries them: what the engine needs and what people read."""

from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from aitrail.contentdir import content_path
from aitrail.errors import ConfigError
from aitrail.streams import Severity

RISK: dict[Severity, int] = {"informational": 10, "low": 25, "medium": 50, "high": 75, "critical": 95}


class CompiledRule(Struct, frozen=True):
    """One rule with its query.

    Attributes:
        kind: ``detection`` or ``hunt``.
        version: hash of the rule's text: a finding says by which text it was made.
        query: SQL with ``$since`` and ``$until``; columns event_id, timestamp, ``group_by``, evidence.
        lookback: seconds before an event that decide about it.
        suppress: seconds in which one group gives one finding.
        entities: kind -> field.
        needs: record types of which it needs one; ``without``: what is missed when none is collected.
        response: phase -> steps.
        behavior: kind of behavior rule; empty for a detection of Sigma.
        table: what its evidence is in: ``events``, or ``health_records`` of a rule about the collector itself.
        requires: tables beside ``events`` that the query reads; without one the rule is not run, and that is said.
    """

    id: str
    name: str
    title: str
    description: str
    severity: Severity
    kind: str
    version: str
    query: str
    method: str
    lookback: int
    group_by: tuple[str, ...]
    suppress: int
    entities: dict[str, str]
    atlas: tuple[str, ...]
    owasp: tuple[str, ...]
    tags: tuple[str, ...]
    needs: tuple[str, ...]
    without: str
    false_positives: tuple[str, ...]
    response: dict[str, tuple[str, ...]]
    behavior: str = ""
    requires: tuple[str, ...] = ()
    table: Literal["events", "health_records"] = "events"


@cache
def shipped() -> tuple[CompiledRule, ...]:
    """The rules that come with aitrail, by name."""
    return read(content_path("compiled", "duckdb.json"))


def read(path: Path) -> tuple[CompiledRule, ...]:
    """Read compiled rules; raises ``ConfigError`` that names the file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[CompiledRule, ...])
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=str(path), hint="reinstall aitrail") from None
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"no compiled rules: {error}", where=str(path), hint="write them with: aitrail content build"
        ) from None


def chosen(names: tuple[str, ...], *, hunts: bool) -> list[CompiledRule]:
    """Pick rules by name; without names all detections, and hunts when asked.

    Raises:
        ConfigError: a name is unknown.
    """
    known = {rule.name: rule for rule in shipped()}
    for name in names:
        if name not in known:
            import difflib  # noqa: PLC0415  (rare path)

            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else "aitrail detect --list shows the names"
            raise ConfigError(f"there is no rule {name!r}", hint=hint)
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    return [rule for rule in known.values() if hunts or rule.kind == "detection"]
