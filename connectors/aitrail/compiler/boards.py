"""Compile dashboards into what runs on a store: DuckDB SQL and all that a page needs beside it."""

import msgspec

from aitrail.compiler.dashboard import Dashboard, Drill, Panel
from aitrail.compiler.dialects import metrics_duckdb as sql
from aitrail.compiler.dialects.duckdb import condition
from aitrail.compiler.dialects.scope import Scope, buckets
from aitrail.compiler.metric import Aggregate, Listing, Metric, catalog
from aitrail.schema.catalog import FieldInfo
from aitrail.store import boards

_FOLDS: dict[str, tuple[boards.Role, str]] = {
    "time": ("time", "Time"),
    "hour_of_day": ("hour", "Hour (UTC)"),
    "day_of_week": ("day", "Day"),
}
_FOLDED = {"hour_of_day": "hour(timestamp)", "day_of_week": "isodow(timestamp)"}
# Acronyms keep their letters in a label.
_WORDS = {"id": "ID", "ip": "IP", "mfa": "MFA", "usd": "USD", "ms": "ms", "atlas": "ATLAS", "owasp": "OWASP"}


def compiled(dashboards: tuple[Dashboard, ...]) -> bytes:
    """The artefact: ``content/compiled/dashboards.json``."""
    return msgspec.json.format(msgspec.json.encode([board(one) for one in dashboards]), indent=1) + b"\n"


def board(dashboard: Dashboard) -> boards.Board:
    """One page as it runs."""
    filters = tuple(field.name for field in dashboard.filters)
    return boards.Board(
        name=dashboard.name,
        number=dashboard.number,
        title=dashboard.title,
        description=dashboard.description,
        range=dashboard.range,
        filters=filters,
        sections=tuple(
            boards.Section(section.title, tuple(panel(one, filters) for one in section.panels))
            for section in dashboard.sections
        ),
    )


def panel(one: Panel, filters: tuple[str, ...]) -> boards.Panel:
    """One panel as it runs."""
    made = boards.Panel(
        id=one.id,
        title=one.title,
        form=one.form,
        help=one.help,
        width=one.width,
        height=one.height,
        stacked=one.stacked,
        tone=one.tone,
        thresholds=one.thresholds,
        drill=_drill(one.drill),
        empty=one.empty,
        text=one.text,
    )
    if one.query is None:
        return made
    scope = Scope(filters)
    made = msgspec.structs.replace(made, dataset=one.query.dataset, behind=_behind(one.query, scope))
    return _listing(made, one.query, scope) if isinstance(one.query, Listing) else _metric(made, one, one.query, scope)


def _drill(drill: Drill | None) -> boards.Drill | None:
    return boards.Drill(drill.to, drill.carry) if drill else None


def _listing(made: boards.Panel, query: Listing, scope: Scope) -> boards.Panel:
    known = catalog(query.dataset)
    fields = tuple(field for field in query.fields if field.name != "event_id")
    wanted = msgspec.structs.replace(query, fields=(known["event_id"], *fields))
    columns = [boards.Column("event_id", "id", "ID"), *(_field(field, "field") for field in fields)]
    return msgspec.structs.replace(made, columns=tuple(columns), rows=_query(wanted, scope))


def _metric(made: boards.Panel, one: Panel, query: Metric, scope: Scope) -> boards.Panel:
    single = one.form == "single"
    shown = msgspec.structs.replace(query, bucket="") if single else query
    times = [boards.Column(name, *_FOLDS[name], kind=_kind(name)) for name in buckets(shown)]
    values = [_value(value) for value in query.values]
    columns = (*times, *(_field(field, "dimension") for field in query.by), *values)
    made = msgspec.structs.replace(
        made,
        value=one.value or query.values[0].name,
        bucket=shown.bucket,
        columns=columns,
        rows=_query(shown, scope),
    )
    # Of the health of collectors a store knows the present state only: there is no course and no range before.
    if not single or query.dataset == "health":
        return made
    before = msgspec.structs.replace(scope, previous=1)
    trend = _query(query, scope, total=True) if query.bucket else None
    return msgspec.structs.replace(made, trend=trend, before=_query(shown, before))


def _kind(bucket: str) -> str:
    return "time" if bucket == "time" else "integer"


def _query(query: Metric | Listing, scope: Scope, *, total: bool = False) -> boards.Query:
    plain = msgspec.structs.replace(scope, filters=())
    return boards.Query(
        text=sql.render(query, plain, total=total),
        filtered=sql.render(query, scope, total=total),
        parameters=sql.parameters(query, plain),
        filters=tuple(field.name for field in scope.fields(query.dataset)),
    )


def _field(field: FieldInfo, role: boards.Role) -> boards.Column:
    return boards.Column(field.name, role, label(field.name), field.unit, field.kind)


def label(name: str) -> str:
    """A field's name for people: ``src_ip`` becomes ``Src IP``."""
    words = [_WORDS.get(word, word) for word in name.split("_")]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def _value(value: Aggregate) -> boards.Column:
    unit = value.unit or (value.field.unit if value.field and value.function not in ("dcount", "count") else "")
    return boards.Column(value.name, "value", value.label or label(value.name), unit, "number")


# --- the rows behind a mark


def _behind(query: Metric | Listing, scope: Scope) -> boards.Behind:
    by = () if isinstance(query, Listing) else query.by
    values = () if isinstance(query, Listing) else query.values
    picks = {field.name: _pick(field) for field in by}
    if not isinstance(query, Listing):
        picks |= {name: f"{_FOLDED[name]} = $pick_{name}" for name in buckets(query) if name in _FOLDED}
    return boards.Behind(
        relation=sql.RELATIONS[query.dataset],
        where=condition(query.where) if query.where else "",
        values={value.name: text for value in values if (text := _own(value, values))},
        picks=picks,
        filters={field.name: sql.chosen(field, scope) for field in scope.fields(query.dataset)},
    )


def _own(value: Aggregate, values: tuple[Aggregate, ...]) -> str:
    """The condition of a value; of a ratio that of what is divided."""
    if value.function == "ratio":
        value = next(one for one in values if one.name == value.of)
    return condition(value.where) if value.where else ""


def _pick(field: FieldInfo) -> str:
    name, bound = f'"{field.name}"', f"$pick_{field.name}"
    if field.kind == "list":
        return f"(CASE WHEN {bound} = '' THEN len({name}) = 0 ELSE list_contains({name}, {bound}) END)"
    if field.kind in ("string", "ip", "text"):
        return f"{name} = {bound}"
    return f"coalesce({name}::VARCHAR, '') = {bound}"
