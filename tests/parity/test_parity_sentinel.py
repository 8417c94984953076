"""The queries of Sentinel's rules, as they run there, raise one alert where the rule's own tests say so.

Executed by duckdb-kql, without the limits to what is new: it has no time of ingestion, and the tests' events are not of
today. Every event is delivered twice, as Sentinel may hold it.
"""

import re
from typing import Any

import duckdb_kql
import pytest

from aitrail.compiler.emit import sentinel_queries
from aitrail.compiler.examples import events_of
from aitrail.compiler.load import load
from aitrail.contentdir import content_path
from parity.test_parity_kql import table

_NEW = re.compile(r"\n?\| where (?:ingestion_time\(\)|EventTime) > ago\(\d+m\)")
SHIPPED = {rule.meta.name: rule for rule in load(content_path("detections")).shipped()}


@pytest.mark.parametrize(
    "name", ["azure_keys_listed", "canary_seen", "injection_repeated", "bedrock_recon_then_invoke"]
)
def test_one_alert_for_each_hit(name: str) -> None:
    rule = SHIPPED[name]
    told = sentinel_queries.told(rule)
    query, limits = _NEW.subn("", told.text)
    assert limits == (not sentinel_queries.near_real_time(rule))
    events: list[dict[str, Any]] = []
    hits = []
    for answer, examples in ((True, rule.meta.hits), (False, rule.meta.misses)):
        for number, example in enumerate(examples):
            tenant = f"{answer}-{number}"
            hits += [tenant] if answer else []
            events += [
                {**event, "tenant_id": tenant, "event_id": f"{tenant}/{event['event_id']}", "src_ip": "203.0.113.9"}
                for event in events_of(example)
            ]
    store = table(events)
    store.execute("INSERT INTO AIAudit_CL SELECT * FROM AIAudit_CL")
    found = duckdb_kql.kql(store, query)
    names = [one[0] for one in found.description]
    rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    assert tuple(names) == told.columns
    assert sorted(row["AITenantId"] for row in rows) == hits
    for row in rows:
        assert row["Events"] == 1
        assert row["SrcIp"] == "203.0.113.9", "what the rule does not carry is looked up"
        assert row["EventUid"].startswith(row["AITenantId"])
        assert row["TimeGenerated"] == row["EventTime"]
        assert row["EventUid"] in row["Evidence"]
