"""The action table of AWS: which API calls concern AI systems, their kind, and where their facts are.

The facts are in ``tables/aws_actions.toml``; this file reads it, checks it and answers by (eventSource, eventName).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from aitrail.errors import ConfigError
from aitrail.event import ActionKind, OutcomeStatus
from aitrail.normalize.aws_paths import (
    NO_GROUP,
    ROOTS,
    Getter,
    Group,
    Scope,
    compile_getter,
    compile_group,
    paths_of,
    searchable,
)

TABLE_FILE = Path(__file__).parent / "tables" / "aws_actions.toml"
ANY_SERVICE = "*"
# What a service's `fields` may hold, besides `resource`.
FIELDS = (
    "model", "model_name", "passed_role", "destination", "account", "agent", "session", "tool", "app", "guardrail",
    "metadata", "bearer", "http_status", "error_code", "user", "credential",
)  # fmt: skip
_MEMO_LIMIT = 8192  # (source, name) pairs; real trails hold a few thousand, hostile ones must not grow memory


class _ActionRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: ActionKind
    names: list[str] = []
    prefixes: list[str] = []
    when: list[str] = []
    use: list[str] | None = None
    resource: list[list[str]] = []


class _ServiceRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    default: ActionKind | None = None
    same_as: str = ""
    hint: list[str] = []
    fields: dict[str, list[Any]] = {}
    actions: list[_ActionRow] = []


class _ConditionRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    paths: list[str]
    prefix: list[str] = []
    suffix: list[str] = []
    contains: list[str] = []
    segment: list[str] = []


class _MessageRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    code: str
    words: list[str]
    status: OutcomeStatus


class _OutcomeRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    denied: list[str] = []
    throttled: list[str] = []
    blocked: list[str] = []
    messages: list[_MessageRow] = []


class _ModelRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    geo_prefixes: list[str] = []


class _TableRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    models: _ModelRows = _ModelRows()
    outcomes: _OutcomeRows = _OutcomeRows()
    conditions: dict[str, _ConditionRow] = {}
    services: dict[str, _ServiceRow] = {}


class Condition(msgspec.Struct, frozen=True):
    """Holds when one value at ``getters`` passes every test that is given; values and tests are lower-case."""

    getters: tuple[Getter, ...]
    prefix: tuple[str, ...]
    suffix: tuple[str, ...]
    contains: tuple[str, ...]
    segment: frozenset[str]

    def holds(self, scope: Scope) -> bool:
        """Whether it holds in ``scope``."""
        for getter in self.getters:
            for value in getter(scope):
                if self._passes(value.lower() if isinstance(value, str) else searchable(value)):
                    return True
        return False

    def _passes(self, value: str) -> bool:
        if self.suffix and not value.endswith(self.suffix):
            return False
        if self.prefix and not value.startswith(self.prefix):
            return False
        if self.segment and self.segment.isdisjoint(value.split("/")):
            return False
        return not self.contains or any(part in value for part in self.contains)


class Action(msgspec.Struct, frozen=True, eq=False):
    """One kind of access: what it is called, what it means and where its facts are (one group per table field)."""

    action: str
    service: str
    kind: ActionKind
    when: tuple[Condition, ...] = ()
    resource: tuple[tuple[Getter, str], ...] = ()
    plain: bool = True
    model: Group = NO_GROUP
    model_name: Group = NO_GROUP
    passed_role: Group = NO_GROUP
    destination: Group = NO_GROUP
    account: Group = NO_GROUP
    agent: Group = NO_GROUP
    session: Group = NO_GROUP
    tool: Group = NO_GROUP
    app: Group = NO_GROUP
    guardrail: Group = NO_GROUP
    metadata: Group = NO_GROUP
    bearer: Group = NO_GROUP
    http_status: Group = NO_GROUP
    error_code: Group = NO_GROUP
    user: Group = NO_GROUP
    credential: Group = NO_GROUP

    def applies(self, scope: Scope) -> bool:
        """Whether one of the conditions holds, or there is none."""
        for condition in self.when:
            if condition.holds(scope):
                return True
        return not self.when


class Plan(msgspec.Struct, frozen=True):
    """What to do with a call: its candidates, best first, and which parts of the record they read."""

    actions: tuple[Action, ...] = ()
    request: bool = False
    response: bool = False
    extra: bool = False
    identity: bool = False


_PLAIN_FIELDS = frozenset({"resource", "model", "guardrail"})  # what the high-volume calls read


class Table:
    """The compiled table. Answers are remembered per (source, name), up to a bound."""

    def __init__(self, rows: _TableRows) -> None:
        self._rows = rows
        self._memo: dict[tuple[str, str], Plan] = {}
        self._others: dict[tuple[str, str], Plan] = {}
        self._conditions = {name: _condition(row) for name, row in rows.conditions.items()}
        other = rows.services.get(ANY_SERVICE)
        self.hints = tuple(hint.encode() for hint in other.hint) if other else ()
        self._outcomes: dict[str, OutcomeStatus] = {
            **dict.fromkeys(rows.outcomes.denied, "denied"),
            **dict.fromkeys(rows.outcomes.throttled, "throttled"),
            **dict.fromkeys(rows.outcomes.blocked, "blocked"),
        }
        self.geo_prefixes = frozenset(rows.models.geo_prefixes)

    @property
    def services(self) -> tuple[str, ...]:
        """The event sources that the table knows, without the catch-all."""
        return tuple(name for name in self._rows.services if name != ANY_SERVICE)

    def find(self, source: str, name: str) -> Plan:
        """What to do with a call: the first action that ``applies`` counts; no actions when the table has none."""
        key = (source, name)
        found = self._memo.get(key)
        return found if found is not None else self._resolve(self._memo, source, name, source)

    def find_other(self, source: str, name: str) -> Plan:
        """What holds in any service; only worth asking when one of ``hints`` is in the raw record."""
        found = self._others.get((source, name))
        return found if found is not None else self._resolve(self._others, source, name, ANY_SERVICE)

    def outcome(self, code: str, message: str) -> OutcomeStatus:
        """What an error code (lower-case) means; the words of ``message`` decide where one code has two meanings."""
        code = code.removeprefix("client.").removeprefix("server.")
        for row in self._rows.outcomes.messages:
            if row.code == code and all(word in message.lower() for word in row.words):
                return row.status
        return self._outcomes.get(code, "error")

    def _resolve(self, memo: dict[tuple[str, str], Plan], source: str, name: str, entry: str) -> Plan:
        service = self._rows.services.get(entry)
        plan = Plan() if service is None else self._plan(service, source, name)
        if len(memo) < _MEMO_LIMIT:
            memo[source, name] = plan
        return plan

    def _plan(self, service: _ServiceRow, source: str, name: str) -> Plan:
        if service.same_as:
            service = self._rows.services[service.same_as]
        rows = _candidates(service, name)
        texts = [text for row in rows for text in self._texts(service, row)]
        roots = {path.root for text in texts for path in paths_of(text)}
        return Plan(
            actions=tuple(self._action(service, row, source, name) for row in rows),
            request=ROOTS["request"] in roots,
            response=ROOTS["response"] in roots,
            extra=ROOTS["extra"] in roots or service.default is not None,
            identity=ROOTS["identity"] in roots,
        )

    def _action(self, service: _ServiceRow, row: _ActionRow, source: str, name: str) -> Action:
        used = _used(service, row)
        return Action(
            action=name.lower(),
            service=source.lower(),
            kind=row.kind,
            when=tuple(self._conditions[condition] for condition in row.when),
            resource=tuple((compile_getter(pair[0]), pair[1]) for pair in used.get("resource", ())),
            plain=_PLAIN_FIELDS.issuperset(used),
            **{key: compile_group(used[key]) for key in FIELDS if used.get(key)},
        )

    def _texts(self, service: _ServiceRow, row: _ActionRow) -> list[str]:
        """Every path and template that an action reads."""
        used = _used(service, row)
        texts = [value[0] if key == "resource" else value for key, values in used.items() for value in values]
        return texts + [path for condition in row.when for path in self._rows.conditions[condition].paths]


def _used(service: _ServiceRow, row: _ActionRow) -> dict[str, list[Any]]:
    used = {key: values for key, values in service.fields.items() if row.use is None or key in row.use}
    return {**used, "resource": [*row.resource, *used.get("resource", [])]} if row.resource else used


def _candidates(service: _ServiceRow, name: str) -> list[_ActionRow]:
    """The service's entries for an event name: exact names, then prefixes, longest first, then the default."""
    exact = [row for row in service.actions if name in row.names]
    by_prefix = [
        (max(len(prefix) for prefix in row.prefixes if name.startswith(prefix)), row)
        for row in service.actions
        if row not in exact and any(name.startswith(prefix) for prefix in row.prefixes)
    ]
    by_prefix.sort(key=lambda item: -item[0])
    rows = exact + [row for _, row in by_prefix]
    if service.default is not None:
        rows.append(_ActionRow(service.default))
    for index, row in enumerate(rows):
        if not row.when:  # always applies: what follows is never reached
            return rows[: index + 1]
    return rows


def _condition(row: _ConditionRow) -> Condition:
    return Condition(
        getters=tuple(compile_getter(path) for path in row.paths),
        prefix=tuple(row.prefix),
        suffix=tuple(row.suffix),
        contains=tuple(row.contains),
        segment=frozenset(row.segment),
    )


def parse(text: str, where: str) -> _TableRows:
    """Read and check one table; raises ``ConfigError`` that names the entry."""
    try:
        rows = msgspec.toml.decode(text.encode(), type=_TableRows)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(
            f"the action table cannot be read: {error}",
            where=where,
            hint="compare the entry with aitrail/normalize/tables/aws_actions.toml, whose head explains the form",
        ) from error
    for name, service in rows.services.items():
        for key, values in service.fields.items():
            paired = key == "resource"
            if key not in (*FIELDS, "resource") or any(_malformed(value, paired) for value in values):
                raise ConfigError(
                    f"services.{name}.fields.{key} is not a known field or has the wrong form",
                    where=where,
                    hint=f"known: resource (pairs), {', '.join(FIELDS)} (paths)",
                )
    return rows


def _malformed(value: Any, paired: bool) -> bool:
    if paired:
        return not (isinstance(value, list) and len(value) == 2 and all(isinstance(item, str) for item in value))
    return not isinstance(value, str)


def load(extra: Sequence[Path] = ()) -> Table:
    """Compile the table, with more tables laid over it: their entries come first, their conditions replace.

    Raises:
        ConfigError: a table cannot be read, or names a condition or service that no table has.
    """
    rows = parse(TABLE_FILE.read_text("utf-8"), str(TABLE_FILE.name))
    for path in extra:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("the action table cannot be read", where=str(path), hint=str(error)) from error
        rows = _overlay(rows, parse(text, str(path)))
    _check_names(rows)
    return Table(rows)


def _overlay(base: _TableRows, top: _TableRows) -> _TableRows:
    services = dict(base.services)
    for name, row in top.services.items():
        old = services.get(name, _ServiceRow())
        services[name] = _ServiceRow(
            default=row.default or old.default,
            same_as=row.same_as or old.same_as,
            hint=[*row.hint, *old.hint],
            fields={**old.fields, **{key: [*value, *old.fields.get(key, [])] for key, value in row.fields.items()}},
            actions=[*row.actions, *old.actions],
        )
    outcomes = _OutcomeRows(
        denied=[*base.outcomes.denied, *top.outcomes.denied],
        throttled=[*base.outcomes.throttled, *top.outcomes.throttled],
        blocked=[*base.outcomes.blocked, *top.outcomes.blocked],
        messages=[*top.outcomes.messages, *base.outcomes.messages],
    )
    models = _ModelRows([*base.models.geo_prefixes, *top.models.geo_prefixes])
    return _TableRows(base.version, models, outcomes, {**base.conditions, **top.conditions}, services)


def _check_names(rows: _TableRows) -> None:
    for name, service in rows.services.items():
        missing = [condition for row in service.actions for condition in row.when if condition not in rows.conditions]
        if service.same_as and service.same_as not in rows.services:
            missing.append(service.same_as)
        if missing:
            raise ConfigError(
                f"services.{name} names {missing[0]!r}, which no table defines",
                where="aws_actions",
                hint="add [conditions.<name>] or correct the name",
            )


DEFAULT_TABLE = load()
