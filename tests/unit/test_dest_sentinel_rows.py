"""Rows of Log Analytics tables: the columns of the catalog, whatever the event."""

import json
import random

import msgspec
import pytest

from aitrail.destinations._raw_fields import Unencodable
from aitrail.destinations.sentinel_rows import FIELD_BYTES, STREAMS, Rows, access_layout, asim_layout, cut_fields
from aitrail.event import AccessEvent, decode, encode
from aitrail.ports import EncodedEvent
from aitrail.schema.catalog import example_event, fields
from aitrail.schema.views.kusto import columns


def encoded(event):
    return EncodedEvent(event.event_id, event.timestamp, encode(event))


def event_with(**values):
    base = {"event_id": "e" * 32, "timestamp": "2026-11-23T09:14:05.120Z", "tenant_id": "acme", "source": "litellm"}
    return AccessEvent(**(base | values))


def _expected(event, time_generated):
    values = json.loads(encode(event))
    named = {field.name_in("sentinel"): values[field.name] for field in fields() if field.name in values}
    return {"TimeGenerated": time_generated, **named}


def test_a_row_has_the_columns_of_the_table():
    event = example_event()
    row = json.loads(Rows(access_layout).row(encoded(event)))
    assert row == _expected(event, event.timestamp)
    assert list(row) == [column for _, column, _ in columns()]
    assert row["EventTime"] == event.timestamp
    assert row["AITenantId"] == event.tenant_id
    assert "TenantId" not in row


def test_rows_of_any_combination_of_fields():
    dice = random.Random(3)
    rows = Rows(access_layout)
    whole = json.loads(encode(example_event()))
    required = {"event_id", "timestamp", "tenant_id", "source"}
    for _ in range(300):
        event = msgspec.convert(
            {name: value for name, value in whole.items() if name in required or dice.random() < 0.5}, AccessEvent
        )
        text = rows.row(encoded(event))
        assert json.loads(text) == _expected(event, event.timestamp)
        assert text.count(b"\n") == 0


def test_time_generated_can_be_the_time_of_reading():
    event = event_with(ingested_at="2026-11-23T10:00:00.000Z")
    rows = Rows(access_layout, "ingested_at")
    row = json.loads(rows.row(encoded(event)))
    assert (row["TimeGenerated"], row["EventTime"]) == (event.ingested_at, event.timestamp)
    assert rows.time_generated(encoded(event)) == event.ingested_at
    without = json.loads(rows.row(encoded(event_with())))
    assert without["TimeGenerated"] == without["EventTime"]


def test_unknown_fields_and_other_spellings_of_the_bytes():
    event = example_event()
    pretty = json.dumps(json.loads(encode(event)) | {"unknown_field": [1]}, indent=1).encode()
    row = Rows(access_layout).row(EncodedEvent(event.event_id, "", pretty))
    assert json.loads(row) == _expected(event, event.timestamp)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"event_id":3}', b"\xff", b'{"a":' + b"[" * 100_000])
def test_what_is_no_event_has_no_row(body):
    with pytest.raises(Unencodable):
        Rows(access_layout).row(EncodedEvent("x", "", body))


def test_asim_rows_have_the_mandatory_columns_and_keep_everything():
    event = example_event()
    row = json.loads(Rows(asim_layout).row(encoded(event)))
    for name in ("EventCount", "EventStartTime", "EventEndTime", "EventVendor", "EventProduct", "EventSchema",
                 "EventSchemaVersion", "EventType", "EventUid", "TimeGenerated"):  # fmt: skip
        assert row[name] not in ("", None), name
    assert row["EventSchema"] == "AgentEvent"
    assert row["ModelName"] == event.model
    assert row["ActorUserId"] == event.user_id
    kept = len(row) + len(row["AdditionalFields"])
    # TimeGenerated, EventEndTime, the bag itself and three constants are no fields of the event.
    assert kept - 6 == len(fields())
    least = json.loads(Rows(asim_layout).row(encoded(event_with())))
    assert least["EventVendor"] == "aitrail"
    assert least["AdditionalFields"] == {}
    assert {name for name, kind in STREAMS.items() if kind.layout is not None} == {"access", "agent_event"}


def test_lists_and_names_are_cut_too():
    event = event_with(evidence=tuple(f"code{number}|plain|user|0-1" for number in range(5_000)), model="m" * 70_000)
    assert cut_fields(event)
    assert 2_000 < len(event.evidence) < 5_000
    assert len(msgspec.json.encode(event.evidence)) <= FIELD_BYTES
    assert event.evidence[:2] == ("code0|plain|user|0-1", "code1|plain|user|0-1")
    assert len(event.model) == FIELD_BYTES
    assert event.truncated is True
    assert not cut_fields(decode(encode(example_event())))
