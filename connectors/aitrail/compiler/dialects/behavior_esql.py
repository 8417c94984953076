"""Behavior rules in ES|QL; what they mean is said in ``compiler.behavior``.

Facts (Elasticsearch, "ES|QL reference"): a division of two integers is one of integers, so a bucket is the time in
milliseconds divided by its length; ``CASE`` without a last value gives null, which aggregates leave out, and wants
values of one type; ``VALUES`` collects distinct values, also those of columns with several, where ``COUNT_DISTINCT``
estimates; ``SPLIT`` keeps the order of its parts. ``MV_EXPAND`` gives every bucket that a run judges a copy of its
baseline. The index holds an event once, its id is the document's.

There is no join of a query with itself and no row before a row: what has to be known beside a group is carried in a
column of several values, and travel cannot be said (``countries`` stands in).
"""

from aitrail.compiler import behavior_schedule
from aitrail.compiler.behavior import LEAST_SPREAD, Behavior, Value
from aitrail.compiler.dialects.esql import INDEX, column, condition
from aitrail.compiler.dialects.scope import shipped_behavior
from aitrail.compiler.problems import Unsupported
from aitrail.compiler.query import Query
from aitrail.schema.catalog import by_name

# The geoip processor's field (Elasticsearch, "GeoIP processor"); ECS has it in the field set of ``source``.
COUNTRY = "source.geo.country_iso_code"


def compile_behavior(rule: Behavior) -> Query:
    """Give the query of ``rule``: the entity's fields, first_time or last_time, the value, what was measured.

    Raises:
        Unsupported: impossible travel, for which ``countries`` stands in, or an entity of several values.
    """
    if rule.kind == "impossible_travel":
        raise Unsupported("esql", "impossible travel: there is no function that looks at the row before")
    rule = shipped_behavior(rule)
    make = {
        "first_seen": _first_seen,
        "deviation": _bucketed,
        "fan_out": _bucketed,
        "rare_in_peer": _rare_in_peer,
    }[rule.kind]
    return Query(rule.meta.name, "esql", "\n".join(make(rule)), "buckets", rule.lookback, rule.grouped)


def countries(rule: Behavior) -> Query:
    """What stands in for travel: one entity in two countries within the span, however far apart."""
    keys = _names(*rule.keys)
    text = "\n".join(
        [
            f"FROM {INDEX}",
            f"| WHERE {condition(rule.condition())} AND {COUNTRY} IS NOT NULL",
            (
                f"| STATS countries = VALUES({COUNTRY}), addresses = VALUES(source.ip), first_time = MIN(@timestamp),"
                f" last_time = MAX(@timestamp) BY {keys}"
            ),
            "| WHERE MV_COUNT(countries) >= 2",
            f"| KEEP {keys}, first_time, last_time, countries, addresses",
        ]
    )
    method = "addresses of two countries in the range of the run; the index needs the geoip processor"
    return Query(rule.meta.name, "esql", text, method, rule.lookback, rule.grouped)


def _name(field: str) -> str:
    return column(by_name()[field])


def _names(*fields: str) -> str:
    return ", ".join(dict.fromkeys(map(_name, fields)))


def _value(value: Value) -> list[str]:
    name = column(value.field)
    if value.form == "network":
        # Of version 6 those below "::" have none; IP_PREFIX keeps the rest of the address as zeros.
        net = f"TO_STRING(IP_PREFIX({name}, 24, 48))"
        return [f'| EVAL value = CASE(STARTS_WITH(TO_STRING({name}), "::"), null, {net})']
    if value.form == "folder":
        return [f'| EVAL value = REPLACE({name}, "/[^/]*$", "")']
    if value.form == "each":
        return [f'| EVAL value = SPLIT({name}, ",")', "| MV_EXPAND value", "| EVAL value = TRIM(value)"]
    if value.form == "product":
        return [f'| EVAL value = MV_FIRST(SPLIT(MV_FIRST(SPLIT(TO_LOWER({name}), "/")), " "))']
    return [f"| EVAL value = {name}", *(["| MV_EXPAND value"] if value.field.kind == "list" else [])]


def _rows(rule: Behavior) -> list[str]:
    bucket = f"| EVAL tick = TO_LONG(@timestamp), bucket = TO_LONG(@timestamp) / {rule.bucket * 1000}"
    stages = [f"FROM {INDEX}", f"| WHERE {condition(rule.condition())}", bucket]
    return [*stages, *_value(rule.value), '| WHERE value != ""'] if rule.value else stages


def _judged(rule: Behavior) -> list[str]:
    """A copy of each bucket for each bucket that a run judges and that has it in itself or its baseline."""
    judged = "today"
    for back in range(1, behavior_schedule.judged(rule) + 1):
        judged = f"MV_APPEND({judged}, today - {back})"
    return [
        f"| EVAL today = TO_LONG(NOW()) / {rule.bucket * 1000}",
        f"| EVAL judged = {judged}",
        "| MV_EXPAND judged",
        f"| WHERE bucket >= judged - {rule.buckets} AND bucket <= judged",
    ]


def _recent(rule: Behavior) -> str:
    return f"TO_LONG(NOW()) - {behavior_schedule.recent(rule) * 1000}"


def _first_seen(rule: Behavior) -> list[str]:
    keys = _names(*rule.keys)
    return [
        *_rows(rule),
        f"| STATS began = MIN(tick) BY {keys}, value, bucket",
        *_judged(rule),
        (
            "| STATS began = MIN(CASE(bucket == judged, began)), before = SUM(CASE(bucket < judged, 1, 0)),"
            f" past = VALUES(CASE(bucket < judged, bucket)) BY {keys}, value, judged"
        ),
        f"| EVAL new = CASE(before == 0 AND began >= {_recent(rule)}, value)",
        f"| STATS past = VALUES(past), new = VALUES(new), began = MIN(CASE(new IS NOT NULL, began)) BY {keys}, judged",
        f"| WHERE new IS NOT NULL AND MV_COUNT(past) >= {rule.min_buckets}",
        "| MV_EXPAND new",
        f"| EVAL value = new, first_time = TO_DATETIME(began){_as_field(rule)}",
        f"| KEEP {_kept(rule)}, first_time, value, judged",
    ]


def _as_field(rule: Behavior) -> str:
    """Where an alert is named by the value's field, the field is there."""
    named = rule.value is not None and rule.value.field.name in rule.grouped
    return f", {column(rule.value.field)} = value" if rule.value and named else ""


def _kept(rule: Behavior) -> str:
    return _names(*rule.carried)


def _bucketed(rule: Behavior) -> list[str]:
    assert rule.metric is not None
    keys, size = _names(*rule.keys), float(rule.buckets)
    field = column(rule.measured) if rule.measured else "*"
    function = {"count": "COUNT(*)", "dcount": f"MV_COUNT(VALUES({field}))", "sum": f"SUM({field})"}
    total = function.get(rule.metric.function, f"MAX({field})")
    if rule.kind == "fan_out":
        usual = [f"| EVAL usual = ROUND({rule.threshold!r} * most, 6)"]
    else:
        usual = [
            f"| EVAL mean = total / {size}",
            f"| EVAL spread = GREATEST(SQRT(GREATEST(squares / {size} - mean * mean, 0.0)), mean * {LEAST_SPREAD})",
            f"| EVAL usual = ROUND(mean + {rule.threshold!r} * spread, 6)",
        ]
    sums = (
        "current = MAX(CASE(bucket == judged, measured)), ended = MAX(CASE(bucket == judged, ended)),"
        " total = SUM(CASE(bucket < judged, measured, 0.0)),"
        " squares = SUM(CASE(bucket < judged, measured * measured, 0.0)),"
        " most = MAX(CASE(bucket < judged, measured, 0.0)), buckets = SUM(CASE(bucket < judged, 1, 0))"
    )
    return [
        *_rows(rule),
        f"| STATS measured = {total}, ended = MAX(tick) BY {keys}, bucket",
        "| EVAL measured = TO_DOUBLE(measured)",
        *_judged(rule),
        f"| STATS {sums} BY {keys}, judged",
        f"| WHERE ended >= {_recent(rule)}",
        "| EVAL measured = ROUND(current, 6), last_time = TO_DATETIME(ended)",
        *usual,
        f"| WHERE buckets >= {rule.min_buckets} AND measured >= {rule.floor!r} AND measured > usual",
        f"| KEEP {keys}, last_time, measured, usual, buckets, judged",
    ]


def _rare_in_peer(rule: Behavior) -> list[str]:
    """Members and users are carried as columns of several values; a candidate as `member, users, value` in one text."""
    group, member = _names("tenant_id", rule.peer), _name(rule.entity[0])
    return [
        *_rows(rule),
        f"| STATS began = MIN(tick) BY {group}, {member}, value, bucket",
        *_judged(rule),
        (
            "| STATS began = MIN(CASE(bucket == judged, began)), before = SUM(CASE(bucket < judged, 1, 0))"
            f" BY {group}, {member}, value, judged"
        ),
        f"| EVAL user = CASE(before > 0, {member}), fresh = CASE(before == 0 AND began >= {_recent(rule)}, {member})",
        f"| STATS users = VALUES(user), fresh = VALUES(fresh) BY {group}, value, judged",
        "| EVAL used = TO_STRING(COALESCE(MV_COUNT(users), 0))",
        "| MV_EXPAND fresh",
        '| EVAL found = CONCAT(fresh, "\\n", used, "\\n", value)',
        f"| STATS members = VALUES(users), found = VALUES(found) BY {group}, judged",
        "| WHERE found IS NOT NULL AND members IS NOT NULL",
        '| EVAL all = CONCAT("\\n", MV_CONCAT(members, "\\n"), "\\n")',
        "| MV_EXPAND found",
        '| EVAL part = SPLIT(found, "\\n")',
        f"| EVAL {member} = MV_FIRST(part), users = TO_LONG(MV_SLICE(part, 1, 1)), value = MV_LAST(part)",
        f'| EVAL own = CASE(LOCATE(all, CONCAT("\\n", {member}, "\\n")) > 0, 1, 0)',
        f"| EVAL peers = MV_COUNT(members) - own{_as_field(rule)}",
        f"| WHERE peers >= {rule.min_members} AND users < ROUND({rule.threshold!r} * peers, 6)",
        f"| KEEP {_kept(rule)}, value, peers, users, judged",
    ]
