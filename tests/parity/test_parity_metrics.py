"""Four engines give the numbers that the metric model promises: random metrics over random events, and the panels.

DuckDB and KQL (duckdb-kql) are executed, SPL and ES|QL run by engines of their documented meaning, all compared with an
evaluator of plain Python. What an engine cannot say or the executor cannot run is counted, not compared.
"""

import base64
import random
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb_kql
import msgspec
import pytest

from aitrail.clock import iso_ms
from aitrail.compiler.dialects import kql, metrics_duckdb, metrics_esql, metrics_kql, metrics_spl
from aitrail.compiler.dialects.scope import Scope, auto_seconds, columns
from aitrail.compiler.examples import connect
from aitrail.compiler.located import Document, read
from aitrail.compiler.metric import Listing, Metric, catalog
from aitrail.compiler.metric_yaml import read_query
from aitrail.compiler.problems import Unsupported
from aitrail.contentdir import content_path
from aitrail.destinations.elastic_documents import DataStream
from aitrail.destinations.elastic_records import RecordDocuments
from aitrail.destinations.sentinel_rows import RecordRows, record_table
from aitrail.event import AccessEvent, encode
from aitrail.schema.ecs import to_ecs
from aitrail.store import records
from aitrail.streams import Finding, Health, Record, encoded
from parity import fuzz
from parity.elastic_engine import document
from parity.elastic_engine import esql as run_esql
from parity.metrics_reference import Look, Percentile, evaluate, rows
from parity.splunk_engine import indexed
from parity.splunk_engine import spl as run_spl
from parity.test_parity_kql import table as kusto_table

START = datetime(2026, 10, 31, tzinfo=UTC)  # a Saturday
END = START + timedelta(days=4)
FILTERS = ("tenant_id", "department", "model", "user_id")
EVENTS = 120
METRICS = {"duckdb": 150, "esql": 150, "kql": 26, "spl": 150}
_MODELS = ["", "gpt-4o", "claude", "a,b", "x*", "it's"]
_TEXT = [
    "user_id",
    "department",
    "model",
    "action",
    "role",
    "outcome_status",
    "principal_type",
    "src_ip",
    "resource_id",
]
_LIST = ["leakage_types", "flags", "evidence"]
_NUMBER = ["token_count", "latency_ms", "cost_usd", "http_status"]


def make_event(rng: random.Random, number: int) -> dict[str, Any]:
    """A random event in or near the range; its numbers add up exactly in any order."""
    moment = START + timedelta(seconds=rng.choice([rng.uniform(-3e5, 4e5), rng.randrange(96) * 3600]))
    found = fuzz.event(rng, number) | {
        "timestamp": iso_ms(moment.timestamp()),
        "model": rng.choice(_MODELS),
        "principal_type": rng.choice(["human", "service", "unknown"]),
        "latency_ms": rng.choice([None, 0.0, 0.5, 12.25, 100.0, 1840.5]),
        "cost_usd": rng.choice([None, 0.0, 0.25, 1.5]),
        "http_status": rng.choice([None, 200, 403, 429]),
    }
    if found["evidence"] and rng.random() < 0.3:
        found["evidence"] = (*found["evidence"], found["evidence"][0])
    wanted = msgspec.convert(found, AccessEvent)
    return {name: getattr(wanted, name) for name in AccessEvent.__struct_fields__}


# Conditions that duckdb-kql parses quickly; rules have their own test.
_PLAIN: list[dict[str, Any]] = [
    {"action": "beta"},
    {"leakage_types|exists": True},
    {"token_count|gte": 4, "department": ["alpha", "beta"]},
    {"sel": {"read_only": False}, "condition": "not sel"},
]


def make_query(rng: random.Random, *, simple: bool = False) -> dict[str, Any]:
    """A random metric, as the YAML has it."""
    values: dict[str, Any] = {"calls": "count"}
    for name in ("second", "third")[: rng.randrange(3)]:
        values[name] = _value(rng, simple=simple)
    if rng.random() < 0.3:
        values["share"] = {"is": f"ratio {rng.choice(list(values))} / {rng.choice(list(values))}", "unit": "%"}
    names = list(values)
    if rng.random() < 0.5:
        names.reverse()
    query: dict[str, Any] = {"values": values}
    by = rng.sample([*_TEXT, "read_only", "http_status"], rng.randrange(3)) + rng.sample(_LIST, rng.choice([0, 0, 1]))
    rng.shuffle(by)
    if by:
        query["by"] = by[:3]
        if rng.random() < 0.5:
            query["top"] = rng.choice([1, 2, 5])
        if rng.random() < 0.3:
            query["present"] = True
    bucket = rng.choice(["", "", "auto", "1h", "15m", "1d", "hour_of_day", "day_of_week", "hour_of_week"])
    if bucket:
        query["bucket"] = bucket
    if rng.random() < 0.7:
        query["where"] = _where(rng, simple=simple)
    if rng.random() < 0.5:
        query["order"] = rng.choice(names)
    if by and not bucket and rng.random() < 0.4:
        query["least"] = rng.choice([1, 2, 5])
    return query


def _value(rng: random.Random, *, simple: bool) -> dict[str, Any]:
    field = rng.choice(_NUMBER)
    text = rng.choice(
        [f"{one} {field}" for one in ("sum", "avg", "min", "max", "p50", "p95")] + ["count", "dcount"] * 2
    )
    if text == "dcount":
        text = f"dcount {rng.choice([*_TEXT, 'http_status', 'read_only'])}"
    return {"is": text} | ({"where": _where(rng, simple=simple)} if rng.random() < 0.5 else {})


def _where(rng: random.Random, *, simple: bool) -> Any:
    if rng.random() < 0.4:
        usual = {
            "principal_type": rng.choice(["human", "unknown"]),
            "outcome_status": rng.choice(["unknown", "denied"]),
        }
        name = rng.choice(sorted(usual))
        return rng.choice([{name: usual[name]}, {"sel": {name: usual[name]}, "condition": "not sel"}])
    return rng.choice(_PLAIN) if simple else fuzz.fixed(fuzz.rule(rng), rng)


def loaded(data: dict[str, Any]) -> Metric | Listing:
    return read_query(Document(Path("x.yml"), {"query": data}, {}), ("query",))


def make_record(rng: random.Random, number: int, dataset: str) -> Record:
    """A random finding or report of a collector's health."""
    moment = iso_ms((START + timedelta(seconds=rng.uniform(-3e5, 4e5))).timestamp())
    key = f"{number:032x}"
    if dataset == "finding":
        return Finding(
            event_id=key,
            timestamp=moment,
            tenant_id=rng.choice(["acme", "globex"]),
            rule_id=rng.choice(["r1", "r2"]),
            rule_name=rng.choice(["", "It's a rule", "Rule 2"]),
            severity=rng.choice(["low", "high", "critical"]),
            user_id=rng.choice(["", "ines", "jo"]),
            entities=tuple(rng.sample(["user:ines", "ip:10.0.0.1", "Model:x"], rng.randrange(3))),
            evidence_count=rng.choice([1, 2, 7]),
            risk_score=rng.choice([None, 10, 80]),
        )
    return Health(
        event_id=key,
        timestamp=moment,
        collector="c1",
        kind=rng.choice(["source", "destination"]),
        name=rng.choice(["cloudtrail", "splunk"]),
        status=rng.choice(["ok", "ok", "late", "failing"]),
        lag_seconds=rng.choice([None, 0.5, 3600.25]),
        rejected=rng.choice([None, 0, 4]),
    )


def _filled(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


RECORD_METRICS: list[dict[str, Any]] = [
    {"dataset": "finding", "values": {"n": "count", "users": "dcount user_id"}, "by": ["entities"], "top": 2},
    {
        "dataset": "finding",
        "values": {"worst": "max risk_score", "n": "count", "high": {"is": "count", "where": {"severity": "high"}}},
        "by": ["severity", "rule_name"],
        "order": "high",
    },
    {
        "dataset": "finding",
        "where": {"severity": ["high", "critical"], "entities|startswith": "user:"},
        "values": {"evidence": "sum evidence_count"},
        "bucket": "auto",
    },
    {"dataset": "health", "values": {"n": "count"}, "by": ["name", "status"], "bucket": "1d", "top": 2},
    {"dataset": "health", "where": {"status": "ok"}, "values": {"lag": "max lag_seconds", "all": "count"}},
    {
        "dataset": "health",
        "values": {"n": "count", "well": {"is": "count", "where": {"status": "ok"}}, "share": {"is": "ratio well / n"}},
        "by": ["kind"],
        "order": "share",
    },
    {"dataset": "health", "values": {"states": "dcount status", "dead": "max rejected"}, "by": ["name"]},
]


class World:
    """The same events in all engines."""

    def __init__(self) -> None:
        rng = random.Random(20261123)
        self.events = [make_event(rng, number) for number in range(EVENTS)]
        twice = [*self.events, *self.events[::7]]
        wire = [msgspec.convert(event, AccessEvent) for event in twice]
        self.duck = connect(self.events)
        self.sets: dict[str, list[dict[str, Any]]] = {"access": self.events}
        self.kusto = kusto_table(twice)
        self.kusto.execute("ALTER TABLE AIAudit_CL ADD COLUMN TimeGenerated TIMESTAMP")
        self.kusto.execute("UPDATE AIAudit_CL SET TimeGenerated = EventTime + INTERVAL 1 HOUR")
        # What is shipped leaves defaults out.
        self.kusto.execute("UPDATE AIAudit_CL SET PrincipalType = '' WHERE PrincipalType = 'unknown'")
        self.kusto.execute("UPDATE AIAudit_CL SET OutcomeStatus = '' WHERE OutcomeStatus = 'unknown'")
        self.splunk = [indexed(msgspec.json.decode(encode(event)), _seconds(event)) for event in wire]
        self.elastic = [document(to_ecs(event), round(_seconds(event) * 1000)) for event in wire[: len(self.events)]]
        for dataset in ("finding", "health"):
            self._add([make_record(rng, number, dataset) for number in range(60)], dataset)

    def _add(self, made: list[Record], dataset: str) -> None:
        self.sets[dataset] = [_filled(record) for record in made]
        bodies = [encoded(record) for record in made]
        records.fill(self.duck, dataset, [one.body for one in bodies])
        to_row, to_document = (
            RecordRows(dataset),
            RecordDocuments(DataStream(f"ai_audit.{dataset}", "default"), dataset),
        )
        rows_ = [msgspec.json.decode(to_row.row(one)) for one in [*bodies, *bodies[::5]]]
        shape = {name: _DUCK[kind] for _, name, kind in record_table(dataset)}
        picks = ", ".join(f'r."{name}"::{kind} AS "{name}"' for name, kind in shape.items())
        texts = {name: "VARCHAR" if kind in ("JSON", "TIMESTAMP") else kind for name, kind in shape.items()}
        self.kusto.execute(
            f"CREATE TABLE {metrics_kql.TABLES[dataset]} AS SELECT {picks} FROM (SELECT unnest(from_json(?::JSON, "
            f"'{msgspec.json.encode([texts]).decode()}')) AS r)",
            [msgspec.json.encode([{key: _kusto(item) for key, item in row.items()} for row in rows_]).decode()],
        )
        for one in [*bodies, *bodies[::5]]:
            event = msgspec.json.decode(one.body)
            self.splunk.append(indexed(event, _moment(event["timestamp"]), metrics_spl.SOURCETYPES[dataset]))
        for one in bodies:
            tree = msgspec.json.decode(to_document.document(one))
            row = document(tree, round(_moment(tree["@timestamp"]) * 1000))
            self.elastic.append(row | {"event.dataset": f"ai_audit.{dataset}"})


_DUCK = {"string": "VARCHAR", "datetime": "TIMESTAMP", "long": "BIGINT", "real": "DOUBLE", "dynamic": "JSON"}


def _kusto(item: Any) -> Any:
    """A time without its zone, a list as the text that it is stored as."""
    return msgspec.json.encode(item).decode() if isinstance(item, list) else item


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _seconds(event: AccessEvent) -> float:
    return datetime.fromisoformat(event.timestamp).timestamp()


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def bounds(previous: int) -> tuple[datetime, datetime]:
    """The range that a viewer looks at so that the query sees START to END."""
    shift = (END - START) * previous
    return START + shift, END + shift


Chosen = dict[str, list[str]]


def duckdb_rows(world: World, query: Metric | Listing, scope: Scope, chosen: Chosen) -> list[dict[str, Any]]:
    since, until = bounds(scope.previous)
    every: dict[str, Any] = {
        **{name: chosen.get(name) for name in FILTERS},
        "since": since.replace(tzinfo=None),
        "until": until.replace(tzinfo=None),
        "bucket": auto_seconds((END - START).total_seconds()),
    }
    bound = {name: every[name] for name in metrics_duckdb.parameters(query, scope)}
    return _fetched(world.duck.execute(metrics_duckdb.render(query, scope), bound))


def _fetched(found: Any) -> list[dict[str, Any]]:
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def kql_rows(world: World, query: Metric | Listing, scope: Scope, chosen: Chosen) -> list[dict[str, Any]]:
    text = metrics_kql.render(query, scope)
    fields = {metrics_kql.parameter(catalog("access")[name]): ",".join(chosen.get(name) or ["*"]) for name in FILTERS}
    if "'" in str(chosen):  # duckdb-kql decodes a quote wrongly
        decoded = r'base64_decode_tostring\("\{(\w+):base64\}"\)'
        text = re.sub(decoded, lambda found: kql.literal(fields[found[1]]), text)
    text = re.sub(r"\{(\w+):base64\}", lambda found: base64.b64encode(fields[found[1]].encode()).decode(), text)
    since, until = bounds(scope.previous)
    text = text.replace("{TimeRange:start}", f"datetime({since:%Y-%m-%d})")
    return _fetched(duckdb_kql.kql(world.kusto, text.replace("{TimeRange:end}", f"datetime({until:%Y-%m-%d})")))


def quoted(text: str) -> str:
    """What Splunk's ``|s`` makes of a value."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def spl_rows(world: World, query: Metric | Listing, scope: Scope, chosen: Chosen) -> list[dict[str, Any]]:
    text = metrics_spl.render(query, scope)
    text = re.sub(r"\$(\w+)\|s\$", lambda found: quoted(",".join(chosen.get(found[1]) or ["*"])), text)
    since, until = bounds(scope.previous)
    return run_spl(text.replace("$$", "$"), world.splunk, (since.timestamp(), until.timestamp()))


def _dataset(row: dict[str, Any]) -> str:
    return (
        str(row["event.dataset"]).removeprefix("ai_audit.")
        if "ai_audit." in str(row.get("event.dataset"))
        else "access"
    )


def esql_rows(world: World, query: Metric | Listing, scope: Scope, chosen: Chosen) -> list[dict[str, Any]]:
    text = metrics_esql.render(query, scope)
    since, until = bounds(scope.previous)
    variables = {name: (chosen.get(name) or ["*"])[0] for name in FILTERS}
    variables |= {"_tstart": since.isoformat(), "_tend": until.isoformat()}
    text = re.sub(r"\?(\w+)", lambda found: quoted(variables[found[1]]), text)
    # Kibana narrows to the dashboard's range.
    documents = [
        row
        for row in world.elastic
        if _dataset(row) == query.dataset
        and (scope.previous or since.timestamp() * 1000 <= row["@timestamp"] < until.timestamp() * 1000)
    ]
    assert text.startswith(f"FROM logs-ai_audit.{query.dataset}-*\n")
    return run_esql(text, documents)


ENGINES = {"duckdb": duckdb_rows, "kql": kql_rows, "spl": spl_rows, "esql": esql_rows}


def plain(row: dict[str, Any], names: Iterable[str]) -> list[Any]:
    """A row as numbers and texts: moments in seconds, what is absent None."""
    found = []
    for name in names:
        item = row.get(name)
        if isinstance(item, datetime):
            item = item.replace(tzinfo=UTC).timestamp()
        found.append(item)
    return found


def same(actual: Any, expected: Any, *, exact: bool) -> bool:
    if isinstance(expected, Percentile):
        if actual is None:
            return False
        return abs(actual - expected.value) < 1e-9 if exact else expected.low <= actual <= expected.high
    if isinstance(expected, float) and isinstance(actual, int | float):
        return abs(actual - expected) < 1e-9
    return bool(actual == expected)


def compare(
    engine: str, query: Metric, actual: list[dict[str, Any]], expected: list[dict[str, Any]], text: Any
) -> None:
    names = columns(query, "_time" if engine == "spl" else "time")
    wanted = columns(query)
    got = [plain(row, names) for row in actual]
    if engine == "esql" and query.bucket in ("auto", "15m", "1h", "1d"):
        got = [[row[0] / 1000, *row[1:]] for row in got]
    assert len(got) == len(expected), (engine, text, got[:5], expected[:5])
    for row, other in zip(got, expected, strict=True):
        for name, item in zip(wanted, row, strict=True):
            assert same(item, other[name], exact=engine == "duckdb"), (engine, name, row, other, text)


def sorted_by_percentile(data: dict[str, Any]) -> bool:
    """Where engines have another percentile, they may have another order."""
    name = data.get("order") or next(iter(data["values"]))
    parts = [name]
    value = data["values"][name]
    text = value["is"] if isinstance(value, dict) else value
    if text.startswith("ratio"):
        parts = [one.strip() for one in text.removeprefix("ratio ").split("/")]
    texts = [value["is"] if isinstance(value := data["values"][part], dict) else value for part in parts]
    return any(re.match(r"p\d", one) for one in texts)


def of_percentile(data: dict[str, Any]) -> bool:
    """A ratio of a percentile is another number where the percentile is."""
    ratios = [value["is"] for value in data["values"].values() if isinstance(value, dict) and "ratio" in value["is"]]
    names = {one.strip() for text in ratios for one in text.removeprefix("ratio ").split("/")}
    texts = [value["is"] if isinstance(value := data["values"][name], dict) else value for name in names]
    return any(re.match(r"p\d", one) for one in texts)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_random_metrics(world: World, engine: str) -> None:
    compared = refused = numbers = 0
    for seed in range(METRICS[engine]):
        rng = random.Random(seed)
        data = make_query(rng, simple=engine == "kql")
        chosen: Chosen = {}
        if rng.random() < 0.4:
            chosen["tenant_id"] = ["acme"]
        if rng.random() < 0.3:
            chosen["model"] = [rng.choice(["gpt-4o", "it's", "x*"])]
        previous = rng.choice([0, 0, 0, 1, 2])
        if engine != "duckdb" and (sorted_by_percentile(data) or of_percentile(data)):
            continue
        none = "" if engine == "duckdb" else "(none)"
        width = auto_seconds((END - START).total_seconds())
        look = Look(START.timestamp(), END.timestamp(), chosen, width, none)
        expected = evaluate(data, world.events, look)
        query = loaded(data)
        assert isinstance(query, Metric)
        try:
            actual = ENGINES[engine](world, query, Scope(tuple(chosen), previous), chosen)
        except (Unsupported, duckdb_kql.KqlUnsupportedError):
            refused += 1
            continue
        compare(engine, query, actual, expected, data)
        compared += 1
        numbers += len(expected)
    # The rest: sorted by a percentile, which differs; networks in KQL, letters beyond ASCII without case in SPL.
    print(f"{engine}: {compared} compared, {numbers} rows, {refused} not executable")
    assert compared >= METRICS[engine] // 2
    assert numbers > compared * 3


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_findings_and_health(world: World, engine: str) -> None:
    for data in RECORD_METRICS:
        width = auto_seconds((END - START).total_seconds())
        look = Look(START.timestamp(), END.timestamp(), {}, width, "" if engine == "duckdb" else "(none)")
        expected = evaluate(data, world.sets[data["dataset"]], look)
        query = loaded(data)
        assert isinstance(query, Metric)
        assert expected
        compare(
            engine,
            query,
            ENGINES[engine](world, query, Scope(("tenant_id",) if engine != "esql" else ()), {}),
            expected,
            data,
        )


def shipped() -> list[tuple[str, dict[str, Any], Metric | Listing]]:
    """The queries of all panels, as written and as read."""
    found = []
    for path in sorted(content_path("dashboards").glob("*.yml")):
        (board,) = read(path)
        for number, section in enumerate(board.data["sections"]):
            for place, panel in enumerate(section["panels"]):
                if "query" in panel:
                    query = read_query(board, ("sections", number, "panels", place, "query"))
                    found.append((f"{path.stem}/{panel['id']}", panel["query"], query))
    return found


@pytest.mark.parametrize("engine", ["duckdb", "esql", "spl"])
def test_shipped_panels(world: World, engine: str) -> None:
    """All panels of the shipped dashboards; KQL is bound by Microsoft's analyser instead (``test_kusto_bind``)."""
    compared = 0
    for name, data, query in shipped():
        width = auto_seconds((END - START).total_seconds())
        look = Look(START.timestamp(), END.timestamp(), {}, width, "" if engine == "duckdb" else "(none)")
        actual = ENGINES[engine](world, query, Scope(()), {})
        events = world.sets[query.dataset]
        if isinstance(query, Listing):
            listed(engine, query, actual, rows(data, events, look), name)
        elif engine == "duckdb" or not (sorted_by_percentile(data) or of_percentile(data)):
            compare(engine, query, actual, evaluate(data, events, look), name)
        compared += 1
    assert compared >= 60


LISTINGS: list[dict[str, Any]] = [
    {"list": ["timestamp", "event_id", "user_id", "flags", "token_count", "read_only", "source"], "limit": 30},
    {"list": ["event_id", "latency_ms"], "order": "latency_ms", "limit": 20, "where": {"principal_type": "unknown"}},
    {
        "list": ["event_id", "principal_type", "outcome_status"],
        "where": {"action|exists": True},
        "order": "token_count",
    },
    {"dataset": "finding", "list": ["event_id", "summary", "entities", "risk_score"], "order": "risk_score"},
    {"dataset": "health", "list": ["event_id", "status", "lag_seconds"], "where": {"status": ["ok", "late"]}},
]


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_listings(world: World, engine: str) -> None:
    for data in LISTINGS:
        query = loaded(data)
        assert isinstance(query, Listing)
        look = Look(START.timestamp(), END.timestamp(), {}, 0, "")
        expected = rows(data, world.sets[query.dataset], look)
        assert expected
        listed(engine, query, ENGINES[engine](world, query, Scope(()), {}), expected, data)


def listed(
    engine: str, query: Listing, actual: list[dict[str, Any]], expected: list[dict[str, Any]], text: Any
) -> None:
    kinds = {field.name: field.kind for field in query.fields}
    got = [{name: loose(row.get(name), kinds[name]) for name in kinds} for row in actual]
    assert got == [{name: loose(row[name], kinds[name]) for name in kinds} for row in expected], (engine, text)


def loose(item: Any, kind: str) -> Any:
    """A value whatever the engine writes: nothing, a set, a number, a moment or a text."""
    if item is None or item in ("", [], ()):
        return None
    if kind == "list":
        items = msgspec.json.decode(item) if isinstance(item, str) and item.startswith("[") else item
        return frozenset(map(str, items)) if isinstance(items, list | tuple) else frozenset([str(items)])
    if kind == "time":
        if isinstance(item, datetime):
            return item.replace(tzinfo=UTC).timestamp()
        return item / 1000 if isinstance(item, int) else _moment(str(item))
    if kind in ("integer", "number"):
        return float(item)
    return str(item).lower() if isinstance(item, bool) else str(item)


CHOSEN = [
    {"model": ["gpt-4o", "claude"], "department": ["(none)"]},
    {"user_id": ["alpha", "(none)"], "tenant_id": ["acme", "globex"]},
    {"model": ['x" OR 1==1 | delete "', "\\", "{TimeRange}"]},
    {"model": ["gpt"]},
]


@pytest.mark.parametrize("chosen", CHOSEN, ids=["two", "none", "injection", "part"])
@pytest.mark.parametrize("engine", ["duckdb", "kql", "spl"])
def test_chosen_values_stay_values(world: World, engine: str, chosen: Chosen) -> None:
    data = {"values": {"calls": "count"}, "by": ["model"]}
    query = loaded(data)
    none = "(none)"
    look = Look(START.timestamp(), END.timestamp(), chosen, 0, none)
    expected = evaluate(data, world.events, look)
    assert bool(expected) == (chosen in CHOSEN[:2])
    assert isinstance(query, Metric)
    scope = Scope(tuple(chosen), none=none)
    compare(engine, query, ENGINES[engine](world, query, scope, chosen), expected, chosen)


def test_what_esql_cannot_join() -> None:
    query = loaded({"values": {"p": "p95 latency_ms"}, "by": ["model"], "bucket": "1h", "top": 3})
    with pytest.raises(Unsupported, match="percentile"):
        metrics_esql.render(query, Scope())
