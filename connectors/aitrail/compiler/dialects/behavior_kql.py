"""Behavior rules in KQL over ``AIAudit_CL``; what they mean is said in ``compiler.behavior``.

Facts (Kusto documentation): ``bin`` of a time cuts UTC days and hours; ``dcount`` estimates, so distinct values are
counted by ``make_set`` or as rows; ``prev`` needs sorted rows and gives null before the first. A scheduled rule of
Sentinel sees at most 14 days, so the query names no range but the part that is news to a run (``Recent``): only those
buckets are compared with the ones before them, which keeps the joins small. A record that came twice counts once.

``geo_info_from_ip_address`` locates addresses; distances are computed, because ``geo_distance_2points`` takes the Earth
for an ellipsoid.
"""

from aitrail.compiler import behavior_schedule
from aitrail.compiler.behavior import EARTH_KM, LEAST_SPREAD, Behavior, Value
from aitrail.compiler.dialects.kql import column, condition
from aitrail.compiler.dialects.scope import shipped_behavior
from aitrail.compiler.query import Query
from aitrail.schema.catalog import by_name
from aitrail.schema.views.kusto import TABLE


def compile_behavior(rule: Behavior) -> Query:
    """Give the query of ``rule``: EventUid, EventTime, the columns of entity and group, what was measured, Evidence."""
    rule = shipped_behavior(rule)
    make = {
        "first_seen": _first_seen,
        "deviation": _bucketed,
        "fan_out": _bucketed,
        "rare_in_peer": _rare_in_peer,
        "impossible_travel": _impossible_travel,
    }[rule.kind]
    method = "sliding" if rule.kind == "impossible_travel" else "buckets"
    return Query(rule.meta.name, "kql", "\n".join(make(rule)), method, rule.lookback, rule.grouped)


def _name(field: str) -> str:
    return column(by_name()[field])


def _names(*fields: str) -> str:
    return ", ".join(dict.fromkeys(map(_name, fields)))


def _value(value: Value) -> tuple[str, str]:
    """The value, and what must be expanded to rows."""
    name = column(value.field)
    if value.form == "network":
        four = f'extract("^([0-9]+[.][0-9]+[.][0-9]+)[.]", 1, {name})'
        groups = f'strcat(tostring(split({name}, "::")[0]), ":0:0:0")'
        six = f'extract("^([0-9a-f]+:[0-9a-f]+:[0-9a-f]+)", 1, {groups})'
        return f'iff({name} has ":", {six}, {four})', ""
    if value.form == "folder":
        return f'replace_regex({name}, "/[^/]*$", "")', ""
    if value.form == "each":
        return "trim(' ', tostring(Part))", f'Part = split({name}, ",")'
    if value.form == "product":
        return f'extract("^[^/ ]+", 0, tolower({name}))', ""
    return ("tostring(Part)", f"Part = {name}") if value.field.kind == "list" else (name, "")


def _head(rule: Behavior) -> list[str]:
    """What is news, and the rows."""
    recent = behavior_schedule.recent(rule) // 60
    extra, expand = [f"Bucket = bin(EventTime, {_span(rule.bucket)})"], ""
    columns = ["EventUid", "EventTime", _names(*rule.carried), "Bucket"]
    if rule.value:
        value, expand = _value(rule.value)
        extra.append(f"Value = {value}")
        columns.append("Value")
    if rule.measured:
        extra.append(f"Number = {column(rule.measured)}")
        columns.append("Number")
    return [
        "let Now = now();",
        f"let Recent = Now - {recent}m;",
        f"let Rows = {TABLE}",
        f"| where EventTime <= Now and {condition(rule.condition())}",
        *([f"| mv-expand {expand} to typeof(string)"] if expand else []),
        f"| extend {', '.join(extra)}",
        *(["| where isnotempty(Value)"] if rule.value else []),
        f"| distinct {', '.join(columns)};",
    ]


def _span(seconds: int) -> str:
    return f"{seconds // 86400}d" if seconds % 86400 == 0 else f"{seconds // 3600}h"


def _firsts(rule: Behavior, keys: str) -> list[str]:
    """The first event per entity, value and bucket; of those that are news, the ones with a value that was there."""
    carried = ", ".join(dict.fromkeys((*map(_name, rule.carried), "Value", "Bucket")))
    return [
        f"let Firsts = materialize(Rows | summarize arg_min(EventTime, EventUid) by {carried});",
        "let Fresh = Firsts | where EventTime >= Recent;",
        f"let Known = Fresh | join kind=inner (Firsts | project {keys}, Value, Then = Bucket) on {keys}, Value",
        f"| where {_in_baseline(rule)} | distinct EventUid, Value;",
    ]


def _in_baseline(rule: Behavior) -> str:
    return f"Then >= Bucket - {_span(rule.span)} and Then < Bucket"


def _first_seen(rule: Behavior) -> list[str]:
    keys = _names(*rule.keys)
    carried = ", ".join(dict.fromkeys((*map(_name, rule.carried), "Value")))
    return [
        *_head(rule),
        *_firsts(rule, keys),
        "Fresh | join kind=leftanti (Known) on EventUid, Value",
        f"| join kind=inner (Firsts | distinct {keys}, Then = Bucket) on {keys}",
        f"| where {_in_baseline(rule)}",
        f"| summarize Buckets = count() by EventUid, EventTime, {carried}",
        f"| where Buckets >= {rule.min_buckets}",
        f"| project EventUid, EventTime, {carried}, Buckets, Evidence = pack_array(EventUid)",
    ]


def _bucketed(rule: Behavior) -> list[str]:
    assert rule.metric is not None
    keys = _names(*rule.keys)
    total = {"count": "count()", "dcount": "array_length(make_set(Number))", "sum": "sum(Number)", "max": "max(Number)"}
    size, n = float(rule.buckets), "InPast"
    if rule.kind == "fan_out":
        usual = f"round({rule.threshold!r} * Most, 6)"
    else:
        variance = f"max_of(Squares / {size} - pow(Total / {size}, 2), 0.0)"
        usual = (
            f"round(Total / {size} + {rule.threshold!r} * max_of(sqrt({variance}), Total / {size} * {LEAST_SPREAD}), 6)"
        )
    return [
        *_head(rule),
        (
            f"let Totals = materialize(Rows | summarize Measured = todouble({total[rule.metric.function]}),"
            f" Last = max(EventTime) by {keys}, Bucket);"
        ),
        "Totals | where Last >= Recent",
        f"| join kind=inner (Totals | project {keys}, Then = Bucket, Past = Measured) on {keys}",
        f"| extend {n} = {_in_baseline(rule)}",
        (
            f"| summarize Buckets = countif({n}), Total = sum(iff({n}, Past, 0.0)),"
            f" Squares = sum(iff({n}, Past * Past, 0.0)), Most = max(iff({n}, Past, 0.0)) by {keys}, Bucket, Measured"
        ),
        f"| extend Measured = round(Measured, 6), Usual = {usual}",
        f"| where Buckets >= {rule.min_buckets} and Measured >= {rule.floor!r} and Measured > Usual",
        f"| join kind=inner (Rows | project {keys}, Bucket, EventTime, EventUid) on {keys}, Bucket",
        (
            "| summarize Evidence = make_set(EventUid, 100), arg_max(EventTime, EventUid)"
            f" by {keys}, Bucket, Measured, Usual, Buckets"
        ),
    ]


def _rare_in_peer(rule: Behavior) -> list[str]:
    group = _names("tenant_id", rule.peer)
    member = _name(rule.entity[0])
    carried = ", ".join(dict.fromkeys((*map(_name, rule.carried), "Value")))
    return [
        *_head(rule),
        *_firsts(rule, f"{group}, {member}"),
        f"let Others = Firsts | distinct {group}, Other = {member}, Then = Bucket;",
        f"let Members = Fresh | join kind=inner (Others) on {group}",
        f"| where {_in_baseline(rule)} and Other != {member} | distinct EventUid, Value, Other",
        "| summarize Members = count() by EventUid, Value;",
        (
            f"let Users = Fresh | join kind=inner (Firsts | distinct {group}, Value, Other = {member}, Then = Bucket)"
            f" on {group}, Value"
        ),
        f"| where {_in_baseline(rule)} | distinct EventUid, Value, Other",
        "| summarize Users = count() by EventUid, Value;",
        "Fresh | join kind=leftanti (Known) on EventUid, Value",
        "| join kind=inner (Members) on EventUid, Value",
        "| join kind=leftouter (Users | project EventUid, Value, Users) on EventUid, Value",
        "| extend Users = coalesce(Users, 0)",
        f"| where Members >= {rule.min_members} and Users < round({rule.threshold!r} * Members, 6)",
        f"| project EventUid, EventTime, {carried}, Members, Users, Evidence = pack_array(EventUid)",
    ]


def _impossible_travel(rule: Behavior) -> list[str]:
    keys = [_name(field) for field in rule.keys]
    same = " and ".join(f"prev({key}) == {key}" for key in keys)
    half = "pow(sin(radians(Latitude - FromLatitude) / 2), 2)"
    other = "cos(radians(FromLatitude)) * cos(radians(Latitude)) * pow(sin(radians(Longitude - FromLongitude) / 2), 2)"
    return [
        "let Now = now();",
        f"let Recent = Now - {behavior_schedule.recent(rule) // 60}m;",
        f"{TABLE}",
        f"| where EventTime <= Now and {condition(rule.condition())}",
        "| extend Place = geo_info_from_ip_address(SrcIp)",
        "| extend Latitude = todouble(Place.latitude), Longitude = todouble(Place.longitude)",
        "| where isnotnull(Latitude) and isnotnull(Longitude)",
        f"| distinct EventUid, EventTime, {_names(*rule.carried)}, SrcIp, Latitude, Longitude",
        f"| sort by {', '.join(f'{key} asc' for key in (*keys, 'EventTime', 'EventUid'))}",
        (
            f"| extend Same = {same}, Before = prev(EventTime), FromUid = prev(EventUid), FromIp = prev(SrcIp),"
            " FromLatitude = prev(Latitude), FromLongitude = prev(Longitude)"
        ),
        f"| where Same and EventTime - Before <= {rule.span}s and EventTime >= Recent",
        (
            f"| extend Km = {2 * EARTH_KM!r} * asin(min_of(1.0, sqrt({half} + {other}))),"
            " Hours = max_of((EventTime - Before) / 1h, 1.0 / 3600)"
        ),
        "| extend Speed = round(Km / Hours, 6)",
        f"| where round(Km, 6) >= {rule.floor!r} and Speed > {rule.threshold!r}",
        (
            f"| project EventUid, EventTime, {_names(*rule.carried)}, FromIp, SrcIp, Km, Speed,"
            " Evidence = pack_array(FromUid, EventUid)"
        ),
    ]
