"""Behavior rules in SPL; what they mean is said in ``compiler.behavior``, how events are read in ``spl``.

A search first counts per entity and bucket, so that what it compares is small; ``mvexpand`` then gives every bucket
that a run judges a copy of its baseline. ``dc`` is exact ("stats functions": ``estdc`` is the estimate), and so are
``stats`` and ``eventstats`` up to the limit of memory that they announce (``limits.conf``, max_mem_usage_mb).
``iplocation`` locates addresses by the database that Splunk brings.
"""

from aitrail.compiler import behavior_schedule
from aitrail.compiler.behavior import EARTH_KM, LEAST_SPREAD, Behavior, Value
from aitrail.compiler.dialects.scope import shipped_behavior
from aitrail.compiler.dialects.spl import SCOPE, prepared, split
from aitrail.compiler.dialects.spl_conditions import condition, name
from aitrail.compiler.expr import fields_of
from aitrail.compiler.query import Query

_LAST_SIX = '"^([0-9a-f]+:[0-9a-f]+:[0-9a-f]+):.*$", "\\1"'
_LAST_FOUR = '"^([0-9]+[.][0-9]+[.][0-9]+)[.].*$", "\\1"'


def compile_behavior(rule: Behavior) -> Query:
    """Give the search of ``rule``: _time, the fields of entity and group, event_id or window_start, the measure."""
    rule = shipped_behavior(rule)
    make = {
        "first_seen": _first_seen,
        "deviation": _bucketed,
        "fan_out": _bucketed,
        "rare_in_peer": _rare_in_peer,
        "impossible_travel": _impossible_travel,
    }[rule.kind]
    method = "sliding" if rule.kind == "impossible_travel" else "buckets"
    return Query(rule.meta.name, "spl", "\n| ".join(make(rule)), method, rule.lookback, rule.grouped)


def _names(*fields: str) -> str:
    return ", ".join(dict.fromkeys(map(name, fields)))


def _value(value: Value) -> list[str]:
    field = name(value.field.name)
    if value.form == "network":
        six = f'replace(replace({field}, "::.*$", ":0:0:0"), {_LAST_SIX})'
        four = f"replace({field}, {_LAST_FOUR})"
        return [f'eval value=case(like({field}, "::%"), null(), like({field}, "%:%"), {six}, true(), {four})']
    if value.form == "folder":
        return [f'eval value=replace({field}, "/[^/]*$", "")']
    if value.form == "each":
        return [f'eval value=split({field}, ",")', "mvexpand value", "eval value=trim(value)"]
    if value.form == "product":
        return [f'eval value=replace(lower({field}), "[/ ](?s:.*)$", "")']
    return [f"eval value={field}", *(["mvexpand value"] if value.field.kind == "list" else [])]


def _rows(rule: Behavior) -> list[str]:
    """The rows, once each, with their bucket."""
    expr = rule.condition()
    filters, rest = split(expr)
    columns = ["_time", "event_id", _names(*rule.carried), "bucket"]
    stages = [
        " ".join([SCOPE, *filters]),
        *prepared(fields_of(expr) | set(rule.carried)),
        *([f"where {condition(rest)}"] if rest else []),
        "dedup event_id",
        f"eval bucket=floor(_time / {rule.bucket})",
    ]
    if rule.value:
        stages += [*_value(rule.value), 'where isnotnull(value) AND NOT (coalesce(value, "")=="")']
        columns.append("value")
    if rule.measured:
        stages.append(f"eval number={name(rule.measured.name)}")
        columns.append("number")
    if rule.kind == "impossible_travel":
        stages[-1:] = ["iplocation src_ip", "where isnotnull(lat) AND isnotnull(lon)"]
        columns[-1:] = ["src_ip", "lat", "lon"]
    return [*stages, f"table {', '.join(columns)}"]


def _judged(rule: Behavior) -> list[str]:
    """A copy of each bucket for each bucket that a run judges and that has it in itself or its baseline."""
    today = f"floor(now() / {rule.bucket})"
    buckets = [f"{today} - {back}" if back else today for back in range(behavior_schedule.judged(rule) + 1)]
    return [
        f"eval judged=mvappend({', '.join(buckets)})",
        "mvexpand judged",
        "eval judged=tonumber(judged)",
        f"where bucket >= judged - {rule.buckets} AND bucket <= judged",
    ]


def _fresh(rule: Behavior, time: str) -> str:
    return f"{time} >= now() - {behavior_schedule.recent(rule)}"


def _firsts(rule: Behavior, keys: str) -> list[str]:
    """The first event per entity, value and bucket, and in how many buckets of the baseline the value was there."""
    # The group's field may be the value itself.
    extra = [one for one in map(name, rule.carried) if one not in keys.split(", ")]
    others = "".join(f", {one}" for one in extra)
    return [
        f"stats min(_time) AS began, earliest(event_id) AS event_id BY {keys}{others}, value, bucket",
        *_judged(rule),
        f"eventstats sum(eval(if(bucket < judged, 1, 0))) AS before BY {keys}, value, judged",
    ]


def _answer(rule: Behavior, *columns: str) -> list[str]:
    return ["eval _time=began", f"table _time, event_id, {_names(*rule.carried)}, value, {', '.join(columns)}"]


def _first_seen(rule: Behavior) -> list[str]:
    keys = _names(*rule.keys)
    return [
        *_rows(rule),
        *_firsts(rule, keys),
        f"eventstats dc(eval(if(bucket < judged, bucket, null()))) AS buckets BY {keys}, judged",
        f"where bucket==judged AND before==0 AND buckets >= {rule.min_buckets} AND {_fresh(rule, 'began')}",
        *_answer(rule, "buckets"),
    ]


def _rare_in_peer(rule: Behavior) -> list[str]:
    group, member = _names("tenant_id", rule.peer), name(rule.entity[0])
    past = f"dc(eval(if(bucket < judged, {member}, null())))"
    return [
        *_rows(rule),
        *_firsts(rule, f"{group}, {member}"),
        f"eventstats {past} AS members BY {group}, judged",
        f"eventstats {past} AS users BY {group}, value, judged",
        f"eventstats sum(eval(if(bucket < judged, 1, 0))) AS own BY {group}, {member}, judged",
        "eval members=coalesce(members, 0) - if(own > 0, 1, 0), users=coalesce(users, 0)",
        (
            f"where bucket==judged AND before==0 AND members >= {rule.min_members}"
            f" AND users < round({rule.threshold!r} * members, 6) AND {_fresh(rule, 'began')}"
        ),
        *_answer(rule, "members", "users"),
    ]


def _bucketed(rule: Behavior) -> list[str]:
    assert rule.metric is not None
    keys, size = _names(*rule.keys), rule.buckets
    total = {"count": "count(event_id)", "dcount": "dc(number)", "sum": "sum(number)", "max": "max(number)"}
    if rule.kind == "fan_out":
        usual = [f"eval usual=round({rule.threshold!r} * most, 6)"]
    else:
        usual = [
            f"eval mean=total / {size}, variance=squares / {size} - mean * mean",
            (
                f"eval spread=max(sqrt(max(variance, 0)), mean * {LEAST_SPREAD}), "
                f"usual=round(mean + {rule.threshold!r} * spread, 6)"
            ),
        ]
    now, past = "if(bucket==judged, {}, null())", "if(bucket < judged, {}, 0)"
    sums = ", ".join(
        [
            f"max(eval({now.format('measured')})) AS current",
            f"max(eval({now.format('ended')})) AS ended",
            f"sum(eval({past.format('measured')})) AS total",
            f"sum(eval({past.format('measured * measured')})) AS squares",
            f"max(eval({past.format('measured')})) AS most",
            f"sum(eval({past.format('1')})) AS buckets",
        ]
    )
    return [
        *_rows(rule),
        f"stats {total[rule.metric.function]} AS measured, max(_time) AS ended BY {keys}, bucket",
        *_judged(rule),
        f"stats {sums} BY {keys}, judged",
        f"where {_fresh(rule, 'coalesce(ended, 0)')}",
        "eval measured=round(current, 6)",
        *usual,
        f"where buckets >= {rule.min_buckets} AND measured >= {rule.floor!r} AND measured > usual",
        f"eval _time=ended, window_start=judged * {rule.bucket}",
        f"table _time, {keys}, measured, usual, buckets, window_start",
    ]


def _impossible_travel(rule: Behavior) -> list[str]:
    keys = _names(*rule.keys)
    last = ", ".join(f"last({one}) AS from_{one}" for one in ("tick", "event_id", "src_ip", "lat", "lon"))
    half = "pow(sin((lat - from_lat) * pi() / 360), 2)"
    other = "cos(from_lat * pi() / 180) * cos(lat * pi() / 180) * pow(sin((lon - from_lon) * pi() / 360), 2)"
    return [
        *_rows(rule),
        "eval tick=round(_time * 1000)",
        "sort 0 tick, event_id",
        f"streamstats current=f window=1 global=f {last} BY {keys}",
        f"where coalesce(from_tick, 0) >= tick - {rule.span * 1000} AND {_fresh(rule, '_time')}",
        (
            f"eval km={2 * EARTH_KM!r} * asin(min(1, sqrt({half} + {other}))), "
            "speed=round(km * 3600000 / max(tick - from_tick, 1000), 6)"
        ),
        f"where round(km, 6) >= {rule.floor!r} AND speed > {rule.threshold!r}",
        f"table _time, event_id, {_names(*rule.carried)}, from_event_id, from_src_ip, src_ip, km, speed",
    ]
