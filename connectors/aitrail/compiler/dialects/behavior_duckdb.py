"""Behavior rules in DuckDB SQL, over the store's ``events`` view; what they mean is said in ``compiler.behavior``.

A query reads ``scope`` as those of detections do (``duckdb.SCOPE``): whoever runs it binds a range that begins
``lookback`` seconds before what it asks about. Rows are cut into buckets once; the baseline is a window over buckets,
not over events, so a million events cost as little as their buckets. One row comes out per entity (and value) and
bucket: the first event at which the rule holds.

Places come from a table ``places`` (src_ip, latitude, longitude, label), which the reader of the store makes.
"""

# ruff: noqa: S608 - statements are made of the catalog's names and quoted literals of the rules, never of events

from aitrail.compiler.behavior import EARTH_KM, LEAST_SPREAD, Behavior, Value
from aitrail.compiler.dialects.duckdb import SCOPE, condition
from aitrail.compiler.metric import Aggregate
from aitrail.compiler.query import Query

# As many events stand for a finding that many made.
_EVIDENCE = 100


def compile_behavior(rule: Behavior) -> Query:
    """Give the query of ``rule``: columns event_id, timestamp, the group's fields, evidence, and what was measured."""
    make = {
        "first_seen": _first_seen,
        "deviation": _bucketed,
        "fan_out": _bucketed,
        "rare_in_peer": _rare_in_peer,
        "impossible_travel": _impossible_travel,
    }[rule.kind]
    method = "sliding" if rule.kind == "impossible_travel" else "buckets"
    return Query(rule.meta.name, "duckdb", make(rule), method, rule.lookback, rule.grouped)


def _names(*fields: str) -> str:
    return ", ".join(f'"{field}"' for field in dict.fromkeys(fields))


def _value(value: Value) -> str:
    name = f'"{value.field.name}"'
    if value.form == "network":
        four = f"left({name}, length({name}) - strpos(reverse({name}), '.'))"
        groups = f"split_part({name}, '::', 1) || ':0:0:0'"
        six = f"regexp_extract({groups}, '^([0-9a-f]+:[0-9a-f]+:[0-9a-f]+)', 1)"
        return f"CASE WHEN contains({name}, ':') THEN {six} ELSE {four} END"
    if value.form == "folder":
        return f"regexp_replace({name}, '/[^/]*$', '')"
    if value.form == "each":
        return f"trim(unnest(string_split({name}, ',')))"
    if value.form == "product":
        return f"regexp_extract(lower({name}), '^[^/ ]+')"
    return f"unnest({name})" if value.field.kind == "list" else name


def _rows(rule: Behavior) -> str:
    """The rows: events of the selector with what the rule reads of them."""
    columns = [_names("event_id", "timestamp", *rule.carried), f"epoch_ms(timestamp) // {rule.bucket * 1000} AS bucket"]
    if rule.value:
        columns.append(f"{_value(rule.value)} AS value")
    if rule.measured:
        columns.append(f'"{rule.measured.name}" AS number')
    text = f"SELECT {', '.join(columns)} FROM scope WHERE {condition(rule.condition())}"
    return f"SELECT * FROM ({text}) WHERE value <> ''" if rule.value else text


def _before(rule: Behavior, *keys: str) -> str:
    """A window over the buckets of the baseline."""
    by = f"PARTITION BY {', '.join(keys)} ORDER BY bucket"
    return f"({by} RANGE BETWEEN {rule.buckets} PRECEDING AND 1 PRECEDING)"


def _first(rule: Behavior) -> str:
    """Per entity, value and bucket: its first event, and in how many buckets of the baseline the value was there."""
    keys = _names(*rule.carried)
    own = [f'"{name}"' for name in rule.watched]
    return (
        f"firsts AS (\n  SELECT {keys}, value, bucket, min(timestamp) AS timestamp,\n"
        f"    arg_min(event_id, row(timestamp, event_id)) AS event_id FROM rows GROUP BY {keys}, value, bucket\n), "
        f"seen AS (\n  SELECT *, count(*) OVER {_before(rule, *own, 'value')} AS before FROM firsts\n)"
    )


def _first_seen(rule: Behavior) -> str:
    keys = _names(*rule.keys)
    history = _before(rule, *(f'"{name}"' for name in rule.keys))
    return (
        f"WITH {SCOPE}, rows AS (\n  {_rows(rule)}\n), {_first(rule)}, active AS (\n"
        f"  SELECT {keys}, bucket, count(*) OVER {history} AS buckets\n"
        f"  FROM (SELECT DISTINCT {keys}, bucket FROM rows)\n)\n"
        f"SELECT {_names('event_id', 'timestamp', *rule.grouped)}, [event_id] AS evidence, value AS measured\n"
        f"FROM seen JOIN active USING ({keys}, bucket)\n"
        f"WHERE before = 0 AND buckets >= {rule.min_buckets}\nORDER BY timestamp, event_id"
    )


def _total(metric: Aggregate) -> str:
    return {"count": "count(*)", "dcount": "count(DISTINCT number)", "sum": "sum(number)", "max": "max(number)"}[
        metric.function
    ]


def _running(metric: Aggregate) -> str:
    """The measure as it grows; distinct values count where they come first."""
    step = {"count": "count(*)", "dcount": "sum(new)", "sum": "sum(number)", "max": "max(number)"}[metric.function]
    return f"round({step} OVER so_far, 6)"


def _limit(rule: Behavior) -> str:
    if rule.kind == "fan_out":
        return f"round({rule.threshold!r} * coalesce(most, 0), 6)"
    mean, variance = f"total / {rule.buckets}", f"squares / {rule.buckets} - power(total / {rule.buckets}, 2)"
    spread = f"greatest(sqrt(greatest({variance}, 0)), {mean} * {LEAST_SPREAD!r})"
    return f"round({mean} + {rule.threshold!r} * {spread}, 6)"


def _bucketed(rule: Behavior) -> str:
    """A number per bucket against those of the baseline; only buckets that end over the limit are looked into."""
    assert rule.metric is not None
    keys = _names(*rule.keys)
    window = _before(rule, *(f'"{name}"' for name in rule.keys))
    past = "max(measured) OVER w AS most, " if rule.kind == "fan_out" else (
        "sum(measured::DOUBLE) OVER w AS total, sum(power(measured, 2)) OVER w AS squares, "
    )  # fmt: skip
    new = f"row_number() OVER (PARTITION BY {keys}, bucket, number ORDER BY timestamp, event_id) = 1"
    distinct = f", ({new})::INTEGER AS new" if rule.metric.function == "dcount" else ""
    over = f"round(measured, 6) >= {rule.floor!r} AND round(measured, 6) > usual"
    columns = _names("event_id", "timestamp", *rule.grouped)
    within = f"PARTITION BY {keys}, bucket ORDER BY timestamp, event_id"
    return (
        f"WITH {SCOPE}, rows AS (\n  {_rows(rule)}\n), totals AS (\n"
        f"  SELECT {keys}, bucket, {_total(rule.metric)} AS measured FROM rows GROUP BY {keys}, bucket\n), past AS (\n"
        f"  SELECT *, {past}count(*) OVER w AS buckets FROM totals WINDOW w AS {window}\n), fired AS (\n"
        f"  SELECT {keys}, bucket, {_limit(rule)} AS usual FROM past\n"
        f"  WHERE buckets >= {rule.min_buckets} AND {over}\n"
        f"), inside AS (\n  SELECT rows.*, usual{distinct}"
        f" FROM rows JOIN fired USING ({keys}, bucket)\n), growing AS (\n"
        f"  SELECT *, {_running(rule.metric)} AS measured,\n"
        f"    list(event_id) OVER ({within} ROWS {_EVIDENCE - 1} PRECEDING) AS evidence FROM inside\n"
        f"  WINDOW so_far AS ({within} ROWS UNBOUNDED PRECEDING)\n), reached AS (\n"
        f"  SELECT DISTINCT ON ({keys}, bucket) {columns}, evidence, measured, usual FROM growing\n"
        f"  WHERE measured > usual AND measured >= {rule.floor!r} ORDER BY {keys}, bucket, timestamp, event_id\n)\n"
        "SELECT * FROM reached ORDER BY timestamp, event_id"
    )


def _rare_in_peer(rule: Behavior) -> str:
    """Members and users are counted once per group and bucket; who is judged is taken off the members."""
    [member] = [f'"{name}"' for name in rule.entity]
    group, watched = _names("tenant_id", rule.peer), _names(*rule.watched)
    matched = " AND ".join(f'old."{name}" = cur."{name}"' for name in ("tenant_id", rule.peer))
    matched += f" AND old.bucket BETWEEN cur.bucket - {rule.buckets} AND cur.bucket - 1"
    own = _before(rule, *(f'"{name}"' for name in rule.watched))
    columns = ", ".join(f'cur."{name}"' for name in ("tenant_id", rule.peer, "bucket"))
    return (
        f"WITH {SCOPE}, rows AS (\n  {_rows(rule)}\n), {_first(rule)}, fresh AS (\n"
        f"  SELECT * FROM seen WHERE before = 0\n), active AS (\n"
        f"  SELECT {watched}, bucket, count(*) OVER {own} AS own\n"
        f"  FROM (SELECT DISTINCT {watched}, bucket FROM rows)\n), peers AS (\n"
        f"  SELECT {columns}, count(DISTINCT old.{member}) AS members\n"
        f"  FROM (SELECT DISTINCT {group}, bucket FROM fresh) AS cur JOIN active AS old ON {matched}\n"
        f"  GROUP BY {columns}\n), users AS (\n"
        f"  SELECT {columns}, cur.value, count(DISTINCT old.{member}) AS users\n"
        f"  FROM (SELECT DISTINCT {group}, bucket, value FROM fresh) AS cur\n"
        f"    JOIN firsts AS old ON {matched} AND old.value = cur.value\n  GROUP BY {columns}, cur.value\n"
        "), judged AS (\n"
        f"  SELECT fresh.*, members - least(own, 1) AS others, coalesce(users, 0) AS users FROM fresh\n"
        f"    JOIN active USING ({watched}, bucket) JOIN peers USING ({group}, bucket)\n"
        f"    LEFT JOIN users USING ({group}, bucket, value)\n)\n"
        f"SELECT {_names('event_id', 'timestamp', *rule.grouped)}, [event_id] AS evidence, value AS measured, others\n"
        f"FROM judged WHERE others >= {rule.min_members} AND users < round({rule.threshold!r} * others, 6)\n"
        "ORDER BY timestamp, event_id"
    )


def _impossible_travel(rule: Behavior) -> str:
    keys, columns = _names(*rule.keys), _names("event_id", "timestamp", *rule.carried)
    half = "power(sin(radians(latitude - lat) / 2), 2)"
    other = "cos(radians(lat)) * cos(radians(latitude)) * power(sin(radians(longitude - lon) / 2), 2)"
    return (
        f"WITH {SCOPE}, rows AS (\n  SELECT {columns}, latitude, longitude FROM scope JOIN places USING (src_ip)\n"
        f"  WHERE {condition(rule.condition())}\n), steps AS (\n"
        "  SELECT *, lag(timestamp) OVER w AS before, lag(latitude) OVER w AS lat, lag(longitude) OVER w AS lon,\n"
        "    lag(event_id) OVER w AS previous FROM rows\n"
        f"  WINDOW w AS (PARTITION BY {keys} ORDER BY timestamp, event_id)\n"
        "), travelled AS (\n"
        f"  SELECT *, {2 * EARTH_KM!r} * asin(least(1, sqrt({half} + {other}))) AS km,\n"
        "    greatest(epoch_ms(timestamp) - epoch_ms(before), 1000) / 3600000 AS hours FROM steps\n"
        f"  WHERE before >= timestamp - INTERVAL {rule.span} SECONDS\n)\n"
        f"SELECT {_names('event_id', 'timestamp', *rule.grouped)}, [previous, event_id] AS evidence,\n"
        f"  round(km / hours, 6) AS measured, km FROM travelled\n"
        f"WHERE round(km, 6) >= {rule.floor!r} AND round(km / hours, 6) > {rule.threshold!r}\n"
        "ORDER BY timestamp, event_id"
    )
