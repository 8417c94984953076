"""Findings, health records and checkpoints reach Splunk, Elasticsearch and Sentinel, each in a place of its own."""

import json
import time

import msgspec
import pytest

from aitrail.clock import SystemClock
from aitrail.config import load
from aitrail.destinations._elastic_settings import ElasticSettings
from aitrail.destinations._raw_fields import Unencodable
from aitrail.destinations._sentinel_settings import SentinelSettings
from aitrail.destinations.elastic_install import artefacts
from aitrail.destinations.elastic_records import RecordDocuments, record_mapping, record_names
from aitrail.destinations.sentinel import SentinelDestination
from aitrail.destinations.sentinel_anomalies import AnomalyRows
from aitrail.destinations.sentinel_rows import FIELD_BYTES, STREAMS, RecordRows, record_table
from aitrail.errors import ConfigError
from aitrail.ports import EncodedEvent
from aitrail.registry import make_route
from aitrail.schema.views.kusto import RESERVED
from aitrail.secrets import Secrets
from aitrail.streams import KINDS, Checkpoint, Finding, Health, encoded, make_id
from aitrail.testing.dce_peer import DCR, dce_peer
from aitrail.testing.elastic_peer import elastic_peer
from aitrail.testing.events import make_events
from aitrail.testing.hec_peer import HecPeer

AT = "2026-11-23T09:14:05.120Z"
FINDING = Finding(
    event_id=make_id("f"),
    timestamp=AT,
    tenant_id="acme",
    rule_id="rule-1",
    rule_name='a "name"\nin two lines',
    severity="high",
    first_seen="2026-11-23T09:00:00.000Z",
    detected_at="2026-11-23T09:15:00.000Z",
    user_id="ines.moreau",
    entities=("user:ines.moreau",),
    evidence_ids=("0" * 32,),
    evidence_count=3,
    atlas=("aml.t0051@5.6.0",),
    risk_score=80,
    summary="3 events",
)
HEALTH = Health(
    event_id=make_id("h"), timestamp=AT, collector="c1", kind="source", name="trail", status="late", lag_seconds=12.5
)
CHECKPOINT = Checkpoint(
    event_id=make_id("c"), timestamp=AT, tenant_id="acme", origin="example.com/acme", size=7, root="AAAA", note="n\n"
)
RECORDS = {"finding": FINDING, "health": HEALTH, "checkpoint": CHECKPOINT}


def dotted(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@pytest.mark.parametrize("stream", KINDS)
def test_every_field_of_a_record_is_kept_and_mapped(stream):
    record = RECORDS[stream]
    event = encoded(record)
    given = {name: value for name, value in json.loads(event.body).items() if name != "stream"}
    data_stream = ElasticSettings(urls=(), stream=stream).data_stream("x")
    line = RecordDocuments(data_stream, stream).document(event)
    assert b"\n" not in line
    document = dict(dotted(json.loads(line)))
    assert {name: document[record_names(stream)[name]] for name in given} == given
    assert document["data_stream.dataset"] == f"ai_audit.{stream}"
    mapped = {name.removesuffix(".type"): kind for name, kind in dotted(_leaves(record_mapping(stream)))}
    assert set(record_names(stream).values()) <= set(mapped)
    for name, value in given.items():
        assert mapped[record_names(stream)[name]] in _FITTING[type(value)], name
    row = json.loads(RecordRows(stream).row(event))
    assert row.pop("TimeGenerated") == AT
    columns = {name: (column, kind) for name, column, kind in record_table(stream)[1:]}
    assert {name: row[columns[name][0]] for name in given} == given
    assert len(row) == len(given)
    assert not {column for column, _ in columns.values()} & RESERVED
    for name, value in given.items():
        assert columns[name][1] in _KQL[type(value)], name


# What Elasticsearch takes a value of this kind as.
_FITTING = {
    str: {"keyword", "date", "match_only_text"},
    list: {"keyword"},
    int: {"long", "float"},
    float: {"double", "float"},
}

_KQL = {str: {"string", "datetime"}, list: {"dynamic"}, int: {"long"}, float: {"real"}}


def _leaves(mapping):
    return {
        name: _leaves(one) if "properties" in one else {"type": one["type"]}
        for name, one in mapping["properties"].items()
    }


# Columns of the table (Azure Monitor table reference, "Anomalies") that are not Azure's own to fill, with their types.
_ANOMALIES = {
    **dict.fromkeys(
        ("AnomalyTemplateId", "AnomalyTemplateName", "AnomalyTemplateVersion", "Description", "DestinationDevice",
         "DestinationIpAddress", "Id", "RuleConfigVersion", "RuleId", "RuleName", "RuleStatus", "SourceDevice",
         "SourceIpAddress", "Tactics", "Techniques", "UserName", "UserPrincipalName", "VendorName"), "string"),
    **dict.fromkeys(
        ("ActivityInsights", "AnomalyDetails", "AnomalyReasons", "DestinationLocation", "DeviceInsights", "Entities",
         "ExtendedLinks", "ExtendedProperties", "SourceLocation", "UserInsights"), "dynamic"),
    **dict.fromkeys(("EndTime", "StartTime", "TimeGenerated"), "datetime"),
    "Score": "real",
}  # fmt: skip
_ANOMALY_TYPES = {"string": str, "dynamic": (dict, list), "datetime": str, "real": float}


def test_a_finding_as_a_row_of_the_table_anomalies():
    finding = msgspec.structs.replace(
        FINDING,
        user_id="ines.moreau@example.com",
        entities=(
            "user:ines.moreau@example.com",
            "ip:203.0.113.9",
            "ip:203.0.113.10",
            "application:retail-bot",
            "model:gpt-4o",
            "resource:/subscriptions/0/resourceGroups/r",
            "resource:arn:aws:s3:::acme",
            "session:s1",
        ),
        rule_version="3fa9",
        owasp=("llm01:2025",),
        tags=("rule_name", "attack.initial-access", "attack.t1078.004", "attack.exfiltration", "other"),
    )
    row = json.loads(AnomalyRows().row(encoded(finding)))
    assert not set(row) - set(_ANOMALIES)
    for column, value in row.items():
        assert isinstance(value, _ANOMALY_TYPES[_ANOMALIES[column]]), column
    bag, entities = row.pop("ExtendedProperties"), row.pop("Entities")
    assert row == {
        "TimeGenerated": finding.detected_at,
        "Id": finding.event_id,
        "VendorName": "aitrail",
        "RuleId": "rule-1",
        "RuleName": finding.rule_name,
        "RuleConfigVersion": "3fa9",
        "RuleStatus": "Production",
        "AnomalyTemplateId": "rule-1",
        "AnomalyTemplateName": finding.rule_name,
        "AnomalyTemplateVersion": "3fa9",
        "Score": 0.8,
        "Description": "3 events",
        "StartTime": finding.first_seen,
        "EndTime": finding.timestamp,
        "Tactics": '["InitialAccess","Exfiltration"]',
        "Techniques": '["T1078.004"]',
        "UserName": finding.user_id,
        "UserPrincipalName": finding.user_id,
        "SourceIpAddress": "203.0.113.9",
        "AnomalyReasons": [{"Name": finding.rule_name, "Description": "3 events"}],
        "AnomalyDetails": {"Severity": "high", "EvidenceCount": 3},
    }
    assert [{name: value for name, value in one.items() if name != "$id"} for one in entities] == [
        {"Type": "account", "Name": "ines.moreau", "UPNSuffix": "example.com"},
        {"Type": "ip", "Address": "203.0.113.9"},
        {"Type": "ip", "Address": "203.0.113.10"},
        {"Type": "cloud-application", "Name": "retail-bot"},
        {"Type": "cloud-application", "Name": "gpt-4o"},
        {"Type": "azure-resource", "ResourceId": "/subscriptions/0/resourceGroups/r"},
    ]
    assert [one["$id"] for one in entities] == ["1", "2", "3", "4", "5", "6"]
    assert bag == {
        "EventUid": finding.event_id,
        "AITenantId": "acme",
        "Severity": "high",
        "RiskScore": 80,
        "DetectedAt": finding.detected_at,
        "EvidenceCount": 3,
        "EvidenceIds": list(finding.evidence_ids),
        "Entities": list(finding.entities),
        "Atlas": list(finding.atlas),
        "Owasp": ["llm01:2025"],
        "Tags": list(finding.tags),
    }


def test_anomalies_of_the_least_and_of_far_too_much():
    least = Finding(event_id=make_id("f"), timestamp=AT, tenant_id="acme", rule_id="rule-1", severity="low")
    row = json.loads(AnomalyRows().row(encoded(least)))
    assert (row["TimeGenerated"], row["StartTime"], row["EndTime"], row["RuleName"]) == (AT, AT, AT, "rule-1")
    assert not {"Score", "UserName", "UserPrincipalName", "SourceIpAddress", "Tactics", "Techniques", "Entities"} & set(
        row
    )
    many = msgspec.structs.replace(
        FINDING,
        user_id="",
        entities=tuple(f"user:u{number:05}" for number in range(9_000)),
        evidence_ids=tuple(f"{number:032x}" for number in range(9_000)),
        evidence_count=9_000,
    )
    row = json.loads(AnomalyRows().row(encoded(many)))
    assert "UserName" not in row, "of several nobody is the one"
    for column in ("Entities", "ExtendedProperties"):
        assert 30_000 < len(msgspec.json.encode(row[column])) <= FIELD_BYTES
    assert row["ExtendedProperties"]["EvidenceCount"] == 9_000
    assert row["ExtendedProperties"]["EvidenceIds"] == list(
        many.evidence_ids[: len(row["ExtendedProperties"]["EvidenceIds"])]
    )
    one = json.loads(AnomalyRows().row(encoded(msgspec.structs.replace(FINDING, user_id="svc-etl"))))
    assert one["UserName"] == "svc-etl"
    assert "UserPrincipalName" not in one
    for event in (encoded(HEALTH), EncodedEvent("x", AT, b"{}")):
        for make in (AnomalyRows().row, AnomalyRows().time_generated):
            with pytest.raises(Unencodable):
                make(event)


@pytest.mark.parametrize("body", [b"{}", b'{"stream":"finding"}', b'{"stream":"nothing","event_id":"x"}', b"\xff"])
def test_what_is_no_record_is_refused_alone(body):
    event = EncodedEvent("x", AT, body)
    for make in (
        RecordRows("finding").row,
        RecordDocuments(ElasticSettings(urls=()).data_stream("x"), "finding").document,
    ):
        with pytest.raises(Unencodable):
            make(event)
    other = EncodedEvent("another", AT, encoded(FINDING).body)
    with pytest.raises(Unencodable):
        RecordRows("finding").row(other)


def test_the_same_records_give_the_same_bytes():
    assert RecordRows("finding").row(encoded(FINDING)) == RecordRows("finding").row(encoded(FINDING))


def routed(tmp_path, text):
    path = tmp_path / "aitrail.toml"
    path.write_text(text)
    route = make_route("siem", load(path), Secrets(), lambda event: None)
    batch = [*make_events(2), *(encoded(one) for one in RECORDS.values())]
    ack = route.destination.send(batch, time.monotonic() + 30)
    route.destination.close()
    return [verdict.status for verdict in ack.verdicts]


def test_splunk_gives_each_kind_its_sourcetype(tmp_path):
    peer = HecPeer()
    statuses = routed(
        tmp_path,
        f"""[destinations.siem]
type = "splunk"
urls = ["{peer.address["url"]}"]
token = "file:{peer.address["token_file"]}"
sourcetypes = {{ health = "my:health" }}
""",
    )
    assert statuses == ["delivered"] * 5
    assert {one.event_id: one.sourcetype for one in peer.indexed()} == {
        **{event.event_id: "ai:access:audit" for event in make_events(2)},
        FINDING.event_id: "ai:access:alert",
        HEALTH.event_id: "my:health",
        CHECKPOINT.event_id: "ai:access:chain",
    }
    peer.close()


def test_elastic_gives_each_kind_its_data_stream(tmp_path):
    peer = elastic_peer()
    statuses = routed(
        tmp_path,
        f"""[destinations.siem]
type = "elastic"
urls = ["{peer.address["url"]}"]
api_key = "file:{peer.address["token_file"]}"
datasets = {{ health = "ai_audit.heartbeat" }}
""",
    )
    assert statuses == ["delivered"] * 5
    paths = {request.path for request in peer.dialect.requests if request.path.endswith("/_bulk")}
    assert paths == {
        f"/logs-ai_audit.{name}-default/_bulk" for name in ("access", "finding", "heartbeat", "checkpoint")
    }
    named = artefacts(datasets={"health": "ai_audit.heartbeat"})
    assert named["/_index_template/logs-ai_audit.heartbeat"]["index_patterns"] == ["logs-ai_audit.heartbeat-*"]
    assert "/_index_template/logs-ai_audit.health" not in named
    with pytest.raises(ConfigError, match="cannot be part"):
        ElasticSettings(urls=(), stream="health", datasets={"health": "a-b"}).data_stream("x")
    peer.close()


class Given:
    def __init__(self, peer):
        self._peer = peer

    def get_token(self, *scopes):
        return self

    token = property(lambda self: self._peer._token)
    expires_on = property(lambda self: int(SystemClock().now()) + 3_600)


@pytest.mark.parametrize("stream", KINDS)
def test_sentinel_gives_each_kind_its_stream(stream):
    peer = dce_peer()
    own = {"health": "Custom-MyHealth_CL"}
    settings = SentinelSettings(
        url=peer.address["url"], dcr=DCR, stream=stream, stream_names=own, stream_name="Custom-Mine_CL"
    )
    destination = SentinelDestination(settings, Given(peer))
    with pytest.raises(ConfigError, match="Custom-"):
        destination.send([encoded(RECORDS[stream])], time.monotonic() + 30)
    name = own.get(stream, STREAMS[stream].stream_name)
    peer.dialect.streams.add(name)
    assert destination.check() == []
    ack = destination.send([encoded(RECORDS[stream])], time.monotonic() + 30)
    assert [verdict.status for verdict in ack.verdicts] == ["delivered"]
    (row,) = peer.dialect.tables[name]
    assert msgspec.json.decode(row)["EventUid"] == RECORDS[stream].event_id
    destination.close()
    peer.close()


@pytest.mark.parametrize("own_name", ["", "Custom-Mine"])
def test_findings_go_to_the_table_anomalies_when_asked(own_name):
    peer = dce_peer()
    names = {"finding": own_name} if own_name else {}
    settings = SentinelSettings(
        url=peer.address["url"], dcr=DCR, findings="anomalies", stream_names=names, plan="auxiliary"
    )
    name = own_name or "Custom-Anomalies"
    peer.dialect.streams.add(name)
    findings = SentinelDestination(msgspec.structs.replace(settings, stream="finding"), Given(peer))
    ack = findings.send([encoded(FINDING)], time.monotonic() + 30)
    assert [verdict.status for verdict in ack.verdicts] == ["delivered"]
    (row,) = peer.dialect.tables[name]
    assert msgspec.json.decode(row)["Id"] == FINDING.event_id
    accesses = SentinelDestination(settings, Given(peer))
    ack = accesses.send(make_events(1), time.monotonic() + 30)
    assert [verdict.status for verdict in ack.verdicts] == ["delivered"]
    assert {table: len(rows) for table, rows in peer.dialect.tables.items()} == {name: 1, "Custom-AIAudit_CL": 1}
    with pytest.raises(ConfigError, match="unknown stream"):
        SentinelDestination(msgspec.structs.replace(settings, stream="anomalies"), Given(peer))
    findings.close()
    accesses.close()
    peer.close()


def test_two_destinations_send_findings_to_both_tables(tmp_path, monkeypatch):
    peer = dce_peer()
    peer.dialect.streams |= {"Custom-AIAuditFindings_CL", "Custom-Anomalies"}
    monkeypatch.setattr("aitrail.destinations.sentinel.default_credential", lambda where: Given(peer))
    where = f'url = "{peer.address["url"]}"\ndcr = "{DCR}"\nstreams = ["finding"]\n'
    path = tmp_path / "aitrail.toml"
    path.write_text(
        f'[destinations.one]\ntype = "sentinel"\n{where}[destinations.two]\ntype = "sentinel"\n{where}'
        'findings = "anomalies"\n'
    )
    for name in ("one", "two"):
        route = make_route(name, load(path), Secrets(), lambda event: None)
        assert route.rule.streams == {"finding"}
        ack = route.destination.send([encoded(FINDING)], time.monotonic() + 30)
        assert [verdict.status for verdict in ack.verdicts] == ["delivered"]
        route.destination.close()
    assert {table: len(rows) for table, rows in peer.dialect.tables.items()} == {
        "Custom-AIAuditFindings_CL": 1,
        "Custom-Anomalies": 1,
    }
    path.write_text(path.read_text().replace('"anomalies"', '"anomaly"'))
    with pytest.raises(ConfigError, match="findings"):
        make_route("two", load(path), Secrets(), lambda event: None)
    peer.close()
