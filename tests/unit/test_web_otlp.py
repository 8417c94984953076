"""OTLP in protobuf becomes the OTLP/JSON that the normalizer reads: both forms of one export give the same events."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from aitrail.normalize.otel_genai import normalize
from aitrail.normalize.outcome import Context
from aitrail.web.auth import Refusal
from aitrail.web.otlp import failure, to_json

FIXTURES = Path(__file__).parents[1] / "fixtures" / "otel_genai"
CASES = sorted(path for path in FIXTURES.glob("*.json") if not path.stem.startswith("bad_"))


def as_protobuf(record: dict[str, Any]) -> tuple[str, bytes] | None:
    """The fixture as an exporter in protobuf would send it; None for what is no export."""
    if "resourceSpans" in record:
        signal, request = "traces", ExportTraceServiceRequest()
    elif "resourceLogs" in record:
        signal, request = "logs", ExportLogsServiceRequest()
    else:
        return None
    try:
        json_format.ParseDict(_ids_in_base64(record), request, ignore_unknown_fields=True)
    except json_format.ParseError:
        return None  # a fixture of another protobuf version
    return signal, request.SerializeToString()


def _ids_in_base64(value: Any) -> Any:
    """protobuf's own JSON mapping writes ids as base64, OTLP/JSON as hex."""
    from base64 import b64encode

    if isinstance(value, list):
        return [_ids_in_base64(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _ids_in_base64(item) for key, item in value.items()}
    for key in ("traceId", "spanId", "parentSpanId"):
        text = found.get(key)
        if isinstance(text, str) and len(text) in (16, 32):
            found[key] = b64encode(bytes.fromhex(text)).decode()
    return found


def test_most_fixtures_can_be_written_in_protobuf() -> None:
    assert sum(as_protobuf(json.loads(path.read_bytes())) is not None for path in CASES) >= 20


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_both_forms_give_the_same(path: Path) -> None:
    found = as_protobuf(json.loads(path.read_bytes()))
    if found is None:
        return
    converted = to_json(found[1], found[0])
    assert isinstance(converted, bytes)
    context = Context(tenant_id="acme")
    ours = msgspec.json.encode(normalize(converted, context))
    theirs = msgspec.json.encode(normalize(path.read_bytes(), context))
    assert json.loads(ours) == json.loads(theirs)


@pytest.mark.parametrize("body", [b"\x0a", b"\xff" * 20, b"not protobuf at all", b"\x0a\xff\xff\xff\xff\x0f"])
def test_what_is_no_protobuf(body: bytes) -> None:
    for signal in ("traces", "logs"):
        found = to_json(body, signal)
        assert isinstance(found, Refusal)
        assert found.status == 400


def test_an_error_is_a_status_message() -> None:
    # google.rpc.Status: 1 is the code, 2 the message.
    assert failure(Refusal(400, "x", "why"), "application/x-protobuf") == b"\x08\x03\x12\x03why"
