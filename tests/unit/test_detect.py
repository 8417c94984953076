"""Record type detection: by keys alone, whatever the texts and metadata inside quote, in whatever order types come."""

import json
from pathlib import Path

import pytest

from aitrail.normalize.detect import SHAPES, Detector, detect
from aitrail.normalize.registry import NORMALIZERS

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDS = [
    (path.parent.name, path)
    for path in sorted(FIXTURES.glob("*/*.json"))
    if path.parent.name in NORMALIZERS and detect(path.read_bytes())
]
# One record of each type and form, written out: the test does not depend on what else is among the fixtures.
EXAMPLES: dict[str, list[bytes]] = {
    "cloudtrail": [
        (
            b'{"eventVersion":"1.11","userIdentity":{"type":"IAMUser"},"eventTime":"2026-11-23T09:14:05Z",'
            b'"eventSource":"bedrock.amazonaws.com","eventName":"Converse","eventID":"a"}'
        ),
        b'{"awsRegion":"eu-west-1","eventID":"a","eventName":"Converse","eventVersion":"1.11"}',
    ],
    "bedrock_invocation": [
        (
            b'{"schemaType":"ModelInvocationLog","schemaVersion":"1.0","timestamp":"2026-11-23T09:14:05Z",'
            b'"accountId":"111122223333","requestId":"r","operation":"Converse","modelId":"m","input":{},"output":{}}'
        ),
        b'{"timestamp":"2026-11-23T09:14:05Z","accountId":"111122223333","schemaType":"ModelInvocationLog","modelId":"m"}',
    ],
    "sagemaker_capture": [
        (
            b'{"captureData":{"endpointInput":{"data":"1,2","encoding":"CSV"}},"eventMetadata":{"eventId":"e"},'
            b'"eventVersion":"0"}'
        ),
    ],
    "azure_openai": [
        (
            b'{"time":"2026-11-23T09:14:05.1200000Z","resourceId":"/SUBSCRIPTIONS/X/PROVIDERS/MICROSOFT.COGNITIVESERVICES/A",'
            b'"category":"RequestResponse","operationName":"ChatCompletions_Create","properties":{}}'
        ),
        (
            b'{"TenantId":"t","TimeGenerated":"2026-11-23T09:14:05Z","Category":"Audit",'
            b'"ResourceProvider":"MICROSOFT.COGNITIVESERVICES","OperationName":"ListKey"}'
        ),
        b'{"properties":{},"category":"AzureOpenAIRequestUsage","time":"2026-11-23T09:14:05Z"}',
    ],
    "apim": [
        (
            b'{"time":"2026-11-23T09:14:05Z","resourceId":"/SUBSCRIPTIONS/X/PROVIDERS/MICROSOFT.APIMANAGEMENT/SERVICE/A",'
            b'"category":"GatewayLogs","operationName":"Microsoft.ApiManagement/GatewayLogs","properties":{}}'
        ),
        b'{"time":"2026-11-23T09:14:05Z","category":"GatewayLlmLogs","correlationId":"c","properties":{}}',
        b'{"TimeGenerated":"2026-11-23T09:14:05Z","CorrelationId":"c","RequestId":"r","SequenceNumber":0}',
        b'{"TimeGenerated":"2026-11-23T09:14:05Z","CorrelationId":"c","ApiId":"a","ResponseCode":200}',
    ],
    "defender_alert": [
        (FIXTURES / "defender_alert" / f"{name}.json").read_bytes()
        for name in ("jailbreak_blocked_table_row", "jailbreak_detected_export", "credential_theft_id_in_alert_name")
    ],
    "litellm": [
        (FIXTURES / "litellm" / f"{name}.json").read_bytes()
        for name in ("chat_success", "older_text_times", "audit_key_created")
    ],
    "litellm_spend": [(FIXTURES / "litellm_spend" / "row_with_json_strings.json").read_bytes()],
    "otel_genai": [
        b'{"resourceSpans":[]}',
        b'{"resourceLogs":[]}',
        b'{"resourceMetrics":[]}',
        b'{"resource":{},"traceId":"t","spanId":"s","startTimeUnixNano":1}',
    ],
    "kong": [(FIXTURES / "kong" / f"{name}.json").read_bytes() for name in ("chat_with_payloads", "rate_limited_429")],
    "envoy_ai": [
        (FIXTURES / "envoy_ai" / f"{name}.json").read_bytes() for name in ("only_documented_keys", "mcp_tool_call")
    ],
    "cloudflare_ai": [
        (FIXTURES / "cloudflare_ai" / f"{name}.json").read_bytes() for name in ("rest_chat", "logpush_encrypted")
    ],
    "databricks_ai": [
        (FIXTURES / "databricks_ai" / f"{name}.json").read_bytes()
        for name in ("inference_row", "inference_older_table", "usage_row")
    ],
    "portkey": [(FIXTURES / "portkey" / f"{name}.json").read_bytes() for name in ("chat", "minimal")],
    "openai_audit": [(FIXTURES / "openai_audit" / "api_key_created_by_session.json").read_bytes()],
    "anthropic_compliance": [(FIXTURES / "anthropic_compliance" / "chat_created.json").read_bytes()],
    "vertex": [
        (FIXTURES / "vertex" / f"{name}.json").read_bytes()
        for name in ("audit_generate_content", "row_chat_without_caller")
    ],
}
PAIRS = [(name, raw) for name, group in EXAMPLES.items() for raw in group]


def test_all_types_have_examples_and_shapes() -> None:
    detected = set(NORMALIZERS) - {"generic_access"}  # that one is what a field map says
    assert set(EXAMPLES) == detected
    assert {shape.name for shape in SHAPES} - {"azure"} | {"azure_openai"} == detected


@pytest.mark.parametrize(("name", "raw"), PAIRS)
def test_each_form(name: str, raw: bytes) -> None:
    assert detect(raw) == name


@pytest.mark.parametrize(("name", "raw"), PAIRS)
def test_spacing_and_order_of_keys_do_not_matter(name: str, raw: bytes) -> None:
    record = json.loads(raw)
    spaced = json.dumps(record, indent=1, separators=(" ,", " : ")).encode()
    backwards = json.dumps(dict(reversed(record.items()))).encode()
    for form in (spaced, backwards, b"\n\t " + raw, json.dumps(record, sort_keys=True).encode()):
        assert detect(form) == name
        detector = Detector()
        assert [detector.detect(form), detector.detect(form)] == [name, name]


def test_every_fixture_is_its_folder_s_type() -> None:
    assert len(RECORDS) > 100
    wrong = [(name, path.stem) for name, path in RECORDS if detect(path.read_bytes()) != name]
    assert wrong == []


@pytest.mark.parametrize("step", [1, 7, 11, 101])
def test_memory_never_changes_the_answer(step: int) -> None:
    detector = Detector()
    order = [RECORDS[(index * step) % len(RECORDS)] for index in range(len(RECORDS) * 2)]
    wrong = [(name, path.stem) for name, path in order if detector.detect(path.read_bytes()) != name]
    assert wrong == []


@pytest.mark.parametrize(("name", "raw"), PAIRS)
def test_quoted_records_of_other_types_do_not_count(name: str, raw: bytes) -> None:
    others = [other.decode() for _, other in PAIRS]
    record = json.loads(raw)
    record["quoted"] = {"text": others, "parsed": [json.loads(other) for other in others]}
    last = json.dumps(record).encode()
    first = json.dumps({"quoted": record.pop("quoted"), **record}).encode()
    detector = Detector()
    for _, other in PAIRS:
        detector.detect(other)
    for form in (last, first):
        assert detect(form) == name
        assert [detector.detect(form), detector.detect(form)] == [name, name]


def test_metadata_of_a_caller_cannot_change_the_type() -> None:
    record = json.loads(EXAMPLES["litellm"][0])
    keys = {key: "x" for _, raw in PAIRS for key in json.loads(raw)}
    record["metadata"]["requester_metadata"] = {**keys, "category": "GatewayLogs", "spend": 1, "table_name": "t"}
    raw = json.dumps(record, separators=(",", ":")).encode()
    detector = Detector()
    for _, other in PAIRS:
        detector.detect(other)
    assert detect(raw) == detector.detect(raw) == "litellm"


def test_gateway_body_with_a_category_of_its_own() -> None:
    record = {
        "time": "2026-11-23T09:14:05Z",
        "properties": {"requestBody": {"category": "RequestResponse"}},
        "category": "GatewayLogs",
        "resourceId": "/subscriptions/x",
    }
    detector = Detector()
    detector.detect(EXAMPLES["azure_openai"][0])
    assert detector.detect(json.dumps(record, separators=(",", ":")).encode()) == "apim"


def test_first_value_with_escaped_quotation_mark() -> None:
    detector = Detector()
    assert detector.detect(EXAMPLES["litellm"][0]) == "litellm"
    tricky = b'{"id":"x\\",\\"litellm_call_id\\":","spend":1,"call_type":"a","request_id":"r"}'
    assert detector.detect(tricky) == detect(tricky) == "litellm_spend"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"[]", b"null", b'"eventVersion"', b"{", b"\xff\xfe", b'{"a":1}', b'{"eventVersion":', b"[{}]",
        b'{"eventVersion":"1.11"}', b'{"insertId":"x","textPayload":""}', b'{"a":' * 100_000, b"\x00" * 50,
        b'{"eventVersion":"1.11","eventSource":"s"',
    ],
)  # fmt: skip
def test_what_fits_no_type(raw: bytes) -> None:
    assert detect(raw) == ""
    assert Detector().detect(raw) == ""


def test_memory_is_bounded() -> None:
    detector = Detector()
    for number in range(2000):
        detector.detect(b'{"k%d":"v","call_type":"a","spend":1,"request_id":"r"}' % number)
    assert len(detector._known) <= 256
    assert detector.detect(b'{"k1999":"v","call_type":"a","spend":1,"request_id":"r"}') == "litellm_spend"
