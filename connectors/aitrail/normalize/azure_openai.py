"""Azure OpenAI / Foundry resource logs (``Microsoft.CognitiveServices/accounts``) and control plane records.

Categories: ``Audit``, ``RequestResponse``, ``AzureOpenAIRequestUsage``, ``Trace``; ``Administrative`` of the activity
log for what concerns AI resources. Forms: the diagnostic record of Event Hub and Blob (camelCase, ``properties`` an
object or a JSON string) and the AzureDiagnostics export (``CallerIPAddress``, ``properties_s``).

Facts: Azure Monitor "Resource logs" and "Supported logs for Microsoft.CognitiveServices/accounts"; field behaviour that
is documented nowhere (two rows per request, token arrays of length 1, ``callerObjectId``) is what tenants observe.
No record of these holds a prompt, an answer, a filter verdict or the end user behind a gateway.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from aitrail.event import AccessEvent, make_event_id
from aitrail.normalize.azure_common import (
    Number,
    address_of,
    azure_time,
    decimal,
    digest_of,
    latency_of,
    operation_of,
    region_of,
    resource_of,
    result_of,
)
from aitrail.normalize.common import decode, has_duplicate_key
from aitrail.normalize.openai_chat import integer
from aitrail.normalize.outcome import Context, Fragment, Normalized, Outcome, Rejected

SOURCE = "azure_openai"
_MODEL_PROVIDER = "azure.ai.openai"  # the name that the OpenTelemetry GenAI conventions give it
Text = str | None
Count = int | float | str | list[Any] | None


class _Properties(msgspec.Struct, gc=False):
    objectId: Text = None
    callerObjectId: Text = None
    modelDeploymentName: Text = None
    modelName: Text = None
    modelVersion: Text = None
    requestTime: Number = None
    responseTime: Number = None
    promptTokens: Count = None
    completionTokens: Count = None
    generatedTokens: Count = None
    cachedTokens: Count = None
    timeToFirstTokenMs: Count = None
    timeToLastTokenMs: Count = None
    userAgent: Text = None


class _Record(msgspec.Struct, gc=False):
    """The diagnostic record; attribute names are shared with ``_Exported``."""

    time: Text = None
    category: Text = None
    operation: Text = msgspec.field(name="operationName", default=None)
    resource_id: Text = msgspec.field(name="resourceId", default=None)
    caller_ip: Text = msgspec.field(name="callerIpAddress", default=None)
    correlation_id: Text = msgspec.field(name="correlationId", default=None)
    duration: Number = msgspec.field(name="durationMs", default=None)
    signature: int | str | None = msgspec.field(name="resultSignature", default=None)
    result_type: int | str | None = msgspec.field(name="resultType", default=None)
    location: Text = None
    tenant: Text = msgspec.field(name="Tenant", default=None)
    properties: _Properties | str | None = None
    identity: Any = None
    object_id: Text = None


class _Exported(msgspec.Struct, gc=False):
    """A row of the AzureDiagnostics table, as data export or a query writes it."""

    time: Text = msgspec.field(name="TimeGenerated", default=None)
    category: Text = msgspec.field(name="Category", default=None)
    operation: Text = msgspec.field(name="OperationName", default=None)
    resource_id: Text = msgspec.field(name="ResourceId", default=None)
    resource_id_lower: Text = msgspec.field(name="_ResourceId", default=None)
    caller_ip: Text = msgspec.field(name="CallerIPAddress", default=None)
    correlation_id: Text = msgspec.field(name="CorrelationId", default=None)
    duration: Number = msgspec.field(name="DurationMs", default=None)
    signature: int | str | None = msgspec.field(name="ResultSignature", default=None)
    result_type: int | str | None = msgspec.field(name="ResultType", default=None)
    location: Text = msgspec.field(name="location_s", default=None)
    location_plain: Text = msgspec.field(name="Location", default=None)
    tenant: Text = msgspec.field(name="Tenant_s", default=None)
    properties: _Properties | str | None = msgspec.field(name="properties_s", default=None)
    identity: Any = None
    object_id: Text = msgspec.field(name="objectId_s", default=None)


_copy: Callable[[AccessEvent], AccessEvent] = AccessEvent.__copy__  # type: ignore[attr-defined]  # not in its stub
_record = msgspec.json.Decoder(_Record)
_exported = msgspec.json.Decoder(_Exported)
_properties = msgspec.json.Decoder(_Properties)
_NO_PROPERTIES = _Properties()
# Which request it was and who made it: keys about which two parsers must not disagree.
_KEYS = (b'"correlationId"', b'"objectId"')
_EXPORTED_KEYS = (b'"CorrelationId"', b'"CallerIPAddress"')


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one record into an event, or a ``Fragment`` for inference rows of RequestResponse (they come in pairs)."""
    row = _read(raw)
    if isinstance(row, Rejected):
        return (row,)
    handler = _CATEGORIES.get((row.category or "").lower())
    if handler is None:
        return (Rejected("type_unknown" if row.category else "field_missing", "category", SOURCE),)
    properties = row.properties
    if isinstance(properties, str):
        inner = decode(_properties, properties.encode() or b"{}", SOURCE)
        if isinstance(inner, Rejected):
            inner.field = f"properties.{inner.field}" if inner.field else "properties"
            return (inner,)
        properties = inner
    return (handler(row, properties or _NO_PROPERTIES, raw, context),)


def _read(raw: bytes) -> _Record | _Exported | Rejected:
    """Decode either form; only the diagnostic record writes ``category`` in lower case."""
    record = decode(_record, raw, SOURCE)
    if isinstance(record, Rejected):
        return record
    if record.category is not None:
        return Rejected("json_duplicate_key", "", SOURCE) if has_duplicate_key(raw, _KEYS) else record
    row = decode(_exported, raw, SOURCE)
    if isinstance(row, Rejected):
        return row
    if has_duplicate_key(raw, _EXPORTED_KEYS):
        return Rejected("json_duplicate_key", "", SOURCE)
    row.location = row.location or row.location_plain
    row.resource_id = row.resource_id or row.resource_id_lower
    return row


def _event(row: _Record | _Exported, properties: _Properties, context: Context) -> AccessEvent | Rejected:
    """Everything that the categories have in common; the identity is left to them."""
    if not row.time:
        return Rejected("field_missing", "time", SOURCE)
    timestamp, code = azure_time(row.time)
    if code:
        return Rejected(code, "time", SOURCE)
    template = _template(
        context.tenant_id,
        row.operation or row.category,
        row.resource_id,
        row.location or row.tenant,  # Tenant is the region, not a tenant
        row.signature,
        row.result_type,
        properties.modelDeploymentName,
        properties.modelName,
        properties.modelVersion,
    )
    event = _copy(template)
    event.timestamp = timestamp
    event.source_event_id = event.request_id = row.correlation_id or ""
    user = properties.objectId or properties.callerObjectId or row.object_id
    if user:
        event.user_id = user.lower()
    address_flag = ""
    if row.caller_ip:
        event.src_ip, event.src_host, address_flag = address_of(row.caller_ip)
    if properties.userAgent:
        event.user_agent = properties.userAgent
    event.latency_ms, wrong = latency_of(properties.requestTime, properties.responseTime, row.duration)
    event.flags = _flags(address_flag, wrong, bool(user))
    return event


@lru_cache(maxsize=4096)
def _template(
    tenant_id: str,
    operation: Text,
    resource_id: Text,
    region: Text,
    signature: int | str | None,
    result_type: int | str | None,
    deployment: Text,
    model: Text,
    version: Text,
) -> AccessEvent:
    """The part of an event that repeats: few combinations of these occur, so each is worked out once and copied."""
    action = (operation or "").lower()
    kind = operation_of(action)
    resource_id = resource_id or ""
    resource = resource_of(resource_id)
    status, outcome = result_of(_plain(signature), _plain(result_type))
    return AccessEvent(
        event_id="",
        timestamp="",
        tenant_id=tenant_id,
        source=SOURCE,
        action=action,
        action_kind=kind.kind,
        read_only=kind.read_only,
        service=resource.provider,
        resource_type=kind.resource or resource.type,
        resource_id=f"{resource_id}/deployments/{deployment}" if deployment and resource_id else resource_id,
        cloud_provider="azure",
        cloud_account=resource.subscription,
        cloud_region=region_of(region or ""),
        model_provider=_MODEL_PROVIDER if deployment or model else "",
        model=(model or deployment or "").lower(),
        model_version=(version or "").lower(),
        outcome_status=outcome,
        http_status=status,
        error_code=_error_code(status, _plain(signature)),
    )


def _plain(value: int | str | None) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _error_code(status: int | None, signature: str) -> str:
    """``forbidden`` of ``Failed.Forbidden``; a bare status or a success is no code."""
    if (status is not None and status < 400) or signature.isdigit() or "." not in signature:
        return ""
    return signature.rpartition(".")[2].lower()[:64]


@lru_cache(maxsize=64)
def _flags(address_flag: str, latency_wrong: bool, known_caller: bool) -> tuple[str, ...]:
    """Codes for what the record lacks; objectId is empty with API keys, so nobody is named then."""
    flags = (address_flag, "latency_invalid" if latency_wrong else "", "" if known_caller else "identity_missing")
    return tuple(flag for flag in flags if flag)


def _count(value: Count) -> int | None:
    """Tokens: a scalar (RequestResponse) or an array of length 1 (AzureOpenAIRequestUsage), whose items add up."""
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, list):
        items = [integer(item) for item in value]
        return sum(item for item in items if item is not None) if any(item is not None for item in items) else None
    return integer(value)


def _milliseconds(value: Count) -> float | None:
    if isinstance(value, list):
        value = value[0] if value else None
    number = decimal(value)
    return number if number is not None and number >= 0 else None


def _set_tokens(event: AccessEvent, prompts: Count, completions: Count, cached: Count) -> None:
    prompt = event.prompt_tokens = _count(prompts)
    completion = event.completion_tokens = _count(completions)
    if cached is not None:
        event.cached_tokens = _count(cached)
    if prompt is not None or completion is not None:
        event.token_count = (prompt or 0) + (completion or 0)


def _request_response(row: _Record | _Exported, properties: _Properties, raw: bytes, context: Context) -> Outcome:
    """Two rows per request, one of them with tokens; the joiner keeps that one. Other operations are one event."""
    event = _event(row, properties, context)
    if isinstance(event, Rejected):
        return event
    _set_tokens(event, properties.promptTokens, properties.completionTokens, properties.cachedTokens)
    group = f"RequestResponse/{event.request_id or _digest(raw)}"
    if event.action_kind != "inference" or not event.request_id:
        event.event_id = make_event_id(context.tenant_id, SOURCE, f"{group}/{event.action}")
        return Normalized(event)
    part = "tokens" if event.token_count is not None else "plain" if event.model else "empty"
    return Fragment("azure_rr", group, part, event)


def _usage(row: _Record | _Exported, properties: _Properties, raw: bytes, context: Context) -> Outcome:
    """Token counts of one request: an event of its own that shares request_id with the RequestResponse event."""
    event = _event(row, properties, context)
    if isinstance(event, Rejected):
        return event
    upstream = f"Usage/{event.request_id or _digest(raw)}/{event.timestamp}"
    event.event_id = make_event_id(context.tenant_id, SOURCE, upstream)
    event.action_kind, event.read_only, event.resource_type = "inference", False, "deployment"
    generated = properties.generatedTokens if properties.generatedTokens is not None else properties.completionTokens
    _set_tokens(event, properties.promptTokens, generated, properties.cachedTokens)
    last = _milliseconds(properties.timeToLastTokenMs)
    event.latency_ms = last if last is not None else event.latency_ms
    event.first_token_ms = _milliseconds(properties.timeToFirstTokenMs)
    return Normalized(event)


def _by_digest(row: _Record | _Exported, properties: _Properties, raw: bytes, context: Context) -> Outcome:
    """An event of a record without an id of its own: its identity is a digest over all that it says."""
    event = _event(row, properties, context)
    if isinstance(event, Rejected):
        return event
    event.event_id = make_event_id(context.tenant_id, SOURCE, f"{row.category}/{_digest(raw)}")
    return Normalized(event)


def _audit(row: _Record | _Exported, properties: _Properties, raw: bytes, context: Context) -> Outcome:
    """Key listings and changes of the account: never a call to a model, whatever the operation is called."""
    outcome = _by_digest(row, properties, raw, context)
    if isinstance(outcome, Normalized) and outcome.event.action_kind == "inference":
        outcome.event.action_kind = "admin"
    return outcome


def _trace(row: _Record | _Exported, properties: _Properties, raw: bytes, context: Context) -> Outcome:
    """A trace row is an access only when it names an operation and who asked for it or how it ended."""
    caller = row.caller_ip or properties.objectId or properties.callerObjectId
    if not row.operation or not (caller or row.signature is not None):
        return Rejected("type_unsupported", "category", SOURCE)
    return _by_digest(row, properties, raw, context)


def _unsupported(row: _Record | _Exported, properties: _Properties, raw: bytes, context: Context) -> Outcome:
    """A record that carries no access: rules and states of the managed network."""
    del row, properties, raw, context
    return Rejected("type_unsupported", "category", SOURCE)


# Providers whose control plane concerns AI; a diagnostic setting is named by the resource that it watches.
_AI_PROVIDERS = ("/microsoft.cognitiveservices/", "/microsoft.machinelearningservices/", "/microsoft.apimanagement/")
_CLAIM = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/"
_OBJECT_CLAIM = "http://schemas.microsoft.com/identity/claims/objectidentifier"


def _administrative(row: _Record | _Exported, properties: _Properties, raw: bytes, context: Context) -> Outcome:
    """Activity log: deployments, content filter policies, keys, diagnostic settings of AI resources."""
    if not any(name in f"{row.resource_id or ''}/".lower() for name in _AI_PROVIDERS):
        return Rejected("not_ai_related", "resourceId", SOURCE)
    outcome = _by_digest(row, properties, raw, context)
    if not isinstance(outcome, Normalized):
        return outcome
    event = outcome.event
    claims = row.identity.get("claims") if isinstance(row.identity, dict) else None
    claims = claims if isinstance(claims, dict) else {}
    upn = _claim(claims, f"{_CLAIM}upn", f"{_CLAIM}emailaddress")
    event.user_id = upn or _claim(claims, _OBJECT_CLAIM, "oid", "appid") or event.user_id
    event.user_name = _claim(claims, "name")
    event.user_email = upn if "@" in upn else ""
    event.credential_id = _claim(claims, "appid")
    event.principal_type = "human" if upn else "service" if _claim(claims, "idtyp") == "app" else "unknown"
    if event.user_id:
        event.flags = tuple(flag for flag in event.flags if flag != "identity_missing")
    return outcome


def _claim(claims: dict[Any, Any], *names: str) -> str:
    return next((value.lower() for name in names if isinstance(value := claims.get(name), str) and value), "")


def _digest(raw: bytes) -> str:
    """Digest over the decoded record, whatever its spacing and order of keys."""
    try:
        return digest_of(msgspec.json.encode(msgspec.json.decode(raw), order="sorted").decode())
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError):
        return digest_of(raw.decode("utf-8", "replace"))


_Handler = Callable[[_Record | _Exported, _Properties, bytes, Context], Outcome]
_CATEGORIES: dict[str, _Handler] = {
    "requestresponse": _request_response,
    "azureopenairequestusage": _usage,
    "audit": _audit,
    "trace": _trace,
    "administrative": _administrative,
    "managednetworkevent": _unsupported,
}
