"""Which record type a record is: by its keys alone, never by the name of the object that it came from.

``detect`` decides by the top-level keys (values stay raw), so a record whose prompt, metadata or request body quotes
another type's record is still told right. ``Detector`` saves that work where records of one type follow one another: it
remembers how records of a type begin. Writers keep the order of keys, so the first two keys (or the first one and the
bracket behind it) are as good as a name; that both are top-level keys is certain, since only one string lies between
them. Azure's services share their first keys, so there the category decides, if it stands before any nested object.
"""

from typing import NamedTuple

import msgspec

_keys = msgspec.json.Decoder(dict[str, msgspec.Raw])
_Object = dict[str, msgspec.Raw]


class Shape(NamedTuple):
    """Top-level keys of a record type: all of ``every``, one of ``some`` (when given)."""

    name: str
    every: frozenset[str]
    some: frozenset[str] = frozenset()


def _shape(name: str, every: str, some: str = "") -> Shape:
    return Shape(name, frozenset(every.split()), frozenset(some.split()))


# Tried in this order; what is more special comes first. "azure" is told apart by the values (see _azure).
SHAPES: tuple[Shape, ...] = (
    _shape("sagemaker_capture", "captureData"),
    _shape("cloudtrail", "eventVersion", "eventSource eventName eventID userIdentity eventTime"),
    _shape("cloudtrail", "awsAccountId digestS3Bucket"),
    _shape("bedrock_invocation", "schemaType", "modelId requestId operation input output accountId"),
    _shape("otel_genai", "", "resourceSpans resourceLogs resourceMetrics"),
    _shape("otel_genai", "traceId spanId", "startTimeUnixNano timeUnixNano observedTimeUnixNano"),
    _shape("kong", "latencies request response", "service route consumer client_ip started_at"),
    _shape(
        "envoy_ai", "response_code", "gen_ai.request.model gen_ai.response.model gen_ai.provider.name mcp.method.name"
    ),
    _shape("cloudflare_ai", "created_at tokens_in", "status_code model_type"),
    _shape("cloudflare_ai", "Gateway Provider", "StatusCode Model"),
    _shape("databricks_ai", "databricks_request_id", "request_time timestamp_ms"),
    _shape("databricks_ai", "event_time requester", "destination_model api_type"),
    _shape("openai_audit", "effective_at type actor"),
    _shape("anthropic_compliance", "created_at type actor", "organization_id organization_uuid"),
    _shape("vertex", "protoPayload", "logName insertId"),
    _shape("vertex", "logging_time", "full_request request_payload deployed_model_id"),
    _shape("litellm_spend", "spend call_type", "request_id api_key startTime"),
    _shape("litellm", "call_type", "litellm_call_id hidden_params model_map_information status_fields"),
    _shape("litellm", "litellm_call_id startTime"),
    _shape("litellm", "table_name action", "object_id changed_by updated_values"),
    _shape("defender_alert", "SystemAlertId", "AlertType AlertName"),
    _shape("azure", "category", "time resourceId operationName"),
    _shape("azure", "resourceId", "time operationName"),
    _shape("azure", "Category", "TimeGenerated ResourceProvider ResourceId _ResourceId OperationName"),
    _shape("apim", "CorrelationId", "ApiId ApimSubscriptionId SequenceNumber BackendUrl"),
    _shape("portkey", "request response", "ai_model total_units hook_results virtual_key metadata"),
)

_AZURE_IDS = ("resourceId", "ResourceId", "_ResourceId", "operationName", "OperationName", "ResourceProvider")


def detect(raw: bytes) -> str:
    """Name of the record type, as in ``registry.NORMALIZERS``; empty when none fits or ``raw`` is no JSON object."""
    try:
        found = _keys.decode(raw)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return ""
    present = found.keys()
    for shape in SHAPES:
        if shape.every <= present and (not shape.some or not shape.some.isdisjoint(present)):
            return _azure(found) if shape.name == "azure" else shape.name
    return ""


def _azure(found: _Object) -> str:
    """Tell API Management from Azure OpenAI by category, resource and operation."""
    category = bytes(found.get("category") or found.get("Category") or b"").lower()
    if category.startswith(b'"gateway'):
        return "apim"
    if any(b"microsoft.apimanagement" in bytes(found[key]).lower() for key in _AZURE_IDS if key in found):
        return "apim"
    return "azure_openai"


# Categories that only one of Azure's services writes (Audit, Administrative and others are of every service).
_CATEGORIES: dict[bytes, str] = {
    b"RequestResponse": "azure_openai",
    b"AzureOpenAIRequestUsage": "azure_openai",
    b"GatewayLogs": "apim",
    b"GatewayLlmLogs": "apim",
}
_CATEGORY_KEYS = (b'"category":"', b'"Category":"', b'"category": "', b'"Category": "')
# Types whose records may be known by their first key and a bracket alone.
_BY_BRACKET = frozenset({"otel_genai", "sagemaker_capture"})
# Types whose records begin as those of others do: every row of a Log Analytics table has the same first columns, and
# `id`, `created_at` or `request` is first in records of many.
_COMMON_START = frozenset({
    "defender_alert", "kong", "envoy_ai", "cloudflare_ai", "databricks_ai", "portkey", "openai_audit",
    "anthropic_compliance", "vertex",
})  # fmt: skip
_MAX_KNOWN = 256  # beginnings that are remembered; a source of random keys must not grow the table
_KEY = 80  # how long a key, and
_VALUE = 300  # a first value, may be to be looked at


class Detector:
    """``detect`` with a memory; one per source and thread. For well-formed records of the known types both agree.

    A broken or foreign record that begins like one of a known type may be given that type: its normalizer then says
    what is wrong with it.
    """

    def __init__(self) -> None:
        self._first = b"\x00"  # the beginning of the last record up to its first value's quotation mark, and
        self._second = b"\x00"  # what follows that value: the second key
        self._start = 1
        self._name = ""
        self._known: dict[tuple[bytes, bytes], str] = {}
        self._category_key = b""  # set while the records are Azure's

    def detect(self, raw: bytes) -> str:
        """Name of the record type, or empty; as the function of this name."""
        if raw.startswith(self._first):
            start = self._start
            if raw.startswith(self._second, raw.find(b'"', start, start + _VALUE) + 1):
                return self._name
        if self._category_key:
            name = _CATEGORIES.get(_category(raw, self._category_key), "")
            if name:
                return name
        beginning = _beginning(raw)
        name = self._known.get(beginning, "")
        if not name:
            name = detect(raw)
            if name in _CATEGORIES.values():
                self._category_key = next((key for key in _CATEGORY_KEYS if _category(raw, key)), b"")
                return name
            if name in _COMMON_START or not name or not beginning[0] or not (beginning[1] or name in _BY_BRACKET):
                return name
            if len(self._known) < _MAX_KNOWN:
                self._known[beginning] = name
        self._first, self._second = beginning
        self._start = len(self._first)
        self._name = name
        return name


def _category(raw: bytes, key: bytes) -> bytes:
    """The top-level category; empty when it is not certain to be top-level, because an object was opened before it."""
    place = raw.find(key, 0, 2048)
    if place < 0 or raw.find(b"{", 1, place) >= 0:
        return b""
    place += len(key)
    return raw[place : raw.find(b'"', place, place + _KEY)]


def _beginning(raw: bytes) -> tuple[bytes, bytes]:
    """First key with the quotation mark of its value, and the second key; or first key and bracket, and nothing."""
    colon = raw.find(b":", 0, _KEY)
    if colon < 0:
        return b"", b""
    start = colon + 3 if raw[colon + 1 : colon + 2] == b" " else colon + 2
    opening = raw[start - 1 : start]
    if opening == b'"':
        end = raw.find(b'"', start, start + _VALUE)
        following = raw.find(b":", end, end + _KEY)
        if end > 0 and following > 0:
            return raw[:start], raw[end + 1 : following + 1]
    elif opening in (b"{", b"["):
        return raw[:start], b""
    return b"", b""
