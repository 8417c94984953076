"""Elasticsearch documents: what ``to_ecs`` gives, for every event there is."""

import json
import random
from pathlib import Path

import msgspec
import pytest

from aitrail.destinations._raw_fields import Unencodable
from aitrail.destinations.elastic_documents import DataStream, Documents
from aitrail.event import AccessEvent, encode
from aitrail.ports import EncodedEvent
from aitrail.schema.catalog import example_event, fields
from aitrail.schema.ecs import to_ecs

GOLDEN = sorted((Path(__file__).parents[2] / "tests/golden").glob("*/*.json"))


def _random_event(dice, number):
    values = {}
    for field in fields():
        if field.name in ("event_id", "timestamp", "tenant_id", "source") or dice.random() < 0.5:
            values[field.name] = _value(field, dice, number)
    return msgspec.convert(values, AccessEvent)


def _value(field, dice, number):
    if field.enum:
        return dice.choice([one for one in field.enum if one])
    if field.name in ("atlas", "owasp"):
        return dice.choice([["aml.t0051@5.6.0"], ["aml.t0051.000@5.6.0", "aml.t0024@5.6.0"]])
    if field.name == "action":
        return dice.choice(["invokemodel", "putguardrail", "deletemodel", "getmodel", "odd%b%s%(x)s"])
    return {
        "time": f"2026-11-23T09:14:{number % 60:02d}.120Z",
        "ip": f"203.0.113.{number % 250}",
        "integer": dice.randrange(1, 10**6),
        "number": dice.uniform(0.1, 5_000),
        "boolean": dice.random() < 0.5,
        "list": [f"one{number}", '%s "q" \\'][: dice.randrange(1, 3)],
    }.get(field.kind, dice.choice([f"v{number}", 'a "quoted" \\ 100%b {0} é\u2028\x00', "x"]))


def _as_json(value):
    return json.loads(msgspec.json.encode(value))


def _encoded(event):
    return EncodedEvent(event.event_id, event.timestamp, encode(event))


def test_documents_are_what_to_ecs_gives():
    stream = DataStream(namespace="prod")
    documents = Documents(stream)
    dice = random.Random(7)
    golden = [
        msgspec.convert(one["event"], AccessEvent)
        for path in GOLDEN
        for one in json.loads(path.read_text())
        if one.get("event")
    ]
    assert len(golden) > 50
    for event in [example_event(), *golden, *(_random_event(dice, number) for number in range(600))]:
        text = documents.document(_encoded(event))
        assert b"\n" not in text
        assert json.loads(text) == _as_json(to_ecs(event)) | {"data_stream": _as_json(stream)}


def test_bytes_in_another_form_give_the_same_document():
    documents = Documents(DataStream())
    event = example_event()
    pretty = json.dumps(json.loads(encode(event)), indent=1).encode()
    shown = EncodedEvent(event.event_id, event.timestamp, pretty)
    assert json.loads(documents.document(shown)) == json.loads(documents.document(_encoded(event)))
    assert b"\n" not in documents.document(shown), "a line break would end the document in a bulk request"
    strange = pretty[:-1] + b',"unknown_field":{"a":[1]}}'
    assert json.loads(documents.document(EncodedEvent(event.event_id, "", strange))) == json.loads(
        documents.document(_encoded(event))
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"event_id":3}', b"\xff", b'{"a":' + b"[" * 100_000])
def test_what_is_no_event_has_no_document(body):
    with pytest.raises(Unencodable):
        Documents(DataStream()).document(EncodedEvent("x", "", body))
