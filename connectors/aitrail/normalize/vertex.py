"""Vertex AI: Cloud Audit Logs exported by Cloud Logging, and rows of its request-response logging (BigQuery export).

Two halves of one call that share no id. The audit log (Data Access must be on) says who called which model from where;
the request-response table has the texts and tokens, but no caller, and with a sampling rate not every call: its events
are flagged ``identity_missing``. Token names: ``full_response.usageMetadata``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from aitrail.event import AccessEvent, ActionKind, OutcomeStatus
from aitrail.normalize.common import split_address
from aitrail.normalize.loose import Object, amount, close, count, dig, first, inner, moment, read, start, text
from aitrail.normalize.openai_chat import ROLES, dumps, loads
from aitrail.normalize.outcome import Content, Context, Message, Outcome, Rejected
from aitrail.normalize.vocabulary import filter_name, name_model

SOURCE = "vertex"
_IDENTITY = (b'"principalEmail"', b'"callerIp"')
_SERVICES = frozenset({
    "aiplatform.googleapis.com", "generativelanguage.googleapis.com", "discoveryengine.googleapis.com",
    "dialogflow.googleapis.com", "notebooks.googleapis.com",
})  # fmt: skip
# google.rpc.Code
_CODES: dict[int, OutcomeStatus] = {0: "success", 7: "denied", 8: "throttled", 16: "denied"}
# Parts of method names, in this order -> kind of access.
_KINDS: tuple[tuple[tuple[str, ...], ActionKind], ...] = (
    (
        ("predict", "generatecontent", "rawpredict", "counttokens", "embed", "chat", "converse", "explain", "search"),
        "inference",
    ),
    (("setiampolicy", "getiampolicy", "testiam"), "auth"),
    (("exportmodel", "copymodel", "uploadmodel", "deletemodel"), "weights"),
    (("dataset", "featurestore", "feature", "index", "ragcorpus", "ragfile", "import", "export"), "data"),
)
_READS = ("get", "list", "search", "read", "query", "fetch")
_REFUSED = frozenset({"safety", "prohibited_content", "blocklist", "spii", "recitation", "image_safety", "model_armor"})


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one log entry or row into one event; total, pure."""
    record = read(raw, SOURCE, _IDENTITY)
    if isinstance(record, Rejected):
        return (record,)
    if "protoPayload" in record:
        return (_audit(raw, record, context),)
    return (_row(raw, record, context),)


# --- audit log


def _audit(raw: bytes, record: Object, context: Context) -> Outcome:
    payload = inner(record, "protoPayload")
    service = first(payload, "serviceName").lower()
    if service not in _SERVICES:
        return Rejected("not_ai_related", "", SOURCE)
    # insertId is unique among entries of one log and time.
    one, when = first(record, "insertId"), text(record.get("timestamp"))
    upstream = f"{first(record, 'logName')}|{when}|{one}" if one else ""
    event = start(raw, SOURCE, context, moment(record.get("timestamp")), "timestamp", upstream)
    if isinstance(event, Rejected):
        return event
    event.source_event_id = one
    event.service, event.cloud_provider = service, "gcp"
    method = first(payload, "methodName")
    event.action = method.rpartition(".")[2].lower()
    event.action_kind = next((kind for words, kind in _KINDS if any(word in event.action for word in words)), "admin")
    event.read_only = event.action_kind == "inference" or event.action.startswith(_READS)
    labels = inner(record, "resource", "labels")
    event.cloud_account = first(labels, "project_id").lower()
    event.cloud_region = first(labels, "location", "region").lower()
    event.resource_type, event.resource_id = _resource(first(payload, "resourceName"))
    if event.resource_type in ("model", "endpoint"):
        publisher = event.resource_id.partition("/publishers/")[2].partition("/")[0].lower()
        event.model_provider, event.model, event.model_version = name_model(
            "vertex_ai" if publisher in ("", "google") else publisher, event.resource_id.rpartition("/")[2].lower(), ""
        )
    _fill_caller(event, payload)
    status = inner(payload, "status")
    code = count(status.get("code")) if status else 0
    event.outcome_status = _CODES.get(code or 0, "error")
    event.error_code = "" if not code else str(code)
    event.trace_id = first(record, "trace").rpartition("/")[2].lower()
    return close(event, person=event.principal_type != "service")


def _resource(name: str) -> tuple[str, str]:
    """Kind and full name: ``projects/p/locations/l/publishers/google/models/m`` is a model."""
    parts = name.split("/")
    kind = parts[-2].lower().removesuffix("s") if len(parts) > 1 else ""
    return kind, name


def _fill_caller(event: AccessEvent, payload: Object) -> None:
    who = inner(payload, "authenticationInfo")
    event.user_email = first(who, "principalEmail").lower()
    event.user_id = event.user_email or first(who, "principalSubject").lower()
    # A service account that a person or another service account acts as: the first of the chain is who began it.
    chain = who.get("serviceAccountDelegationInfo")
    begun = inner(chain[0], "firstPartyPrincipal") if isinstance(chain, list) and chain else {}
    if first(begun, "principalEmail"):
        event.role = event.user_email
        event.user_email = event.user_id = first(begun, "principalEmail").lower()
    event.credential_id = first(who, "serviceAccountKeyName")
    if event.user_id.endswith("gserviceaccount.com") or event.user_id.startswith("serviceaccount:"):
        event.principal_type = "service"
    metadata = inner(payload, "requestMetadata")
    event.src_ip, event.src_host = split_address(first(metadata, "callerIp"))
    event.user_agent = first(metadata, "callerSuppliedUserAgent")


# --- request-response logging


def _row(raw: bytes, record: Object, context: Context) -> Outcome:
    one = first(record, "request_id")
    upstream = f"{one}|{text(record.get('logging_time'))}" if one else ""
    event = start(raw, SOURCE, context, moment(record.get("logging_time"), 1000.0), "logging_time", upstream)
    if isinstance(event, Rejected):
        return event
    event.source_event_id = event.request_id = one
    event.service, event.cloud_provider = "aiplatform.googleapis.com", "gcp"
    event.action = (first(record, "api_method") or "generatecontent").rpartition(".")[2].lower()
    event.action_kind, event.read_only = "inference", True
    endpoint = first(record, "endpoint")
    event.resource_type, event.resource_id = ("endpoint", endpoint) if endpoint else ("", "")
    event.model_provider, event.model, event.model_version = name_model(
        "vertex_ai", first(record, "model").rpartition("/")[2].lower(), first(record, "model_version").lower()
    )
    if event.model_version == "default":  # which one that was is in the response
        event.model_version = ""
    metadata = inner(record, "metadata")
    event.latency_ms = amount(metadata.get("request_latency"))
    event.outcome_status = "success"
    responses = list(_bodies(record, "full_response", "response_payload"))
    for response in responses:
        _fill_usage(event, response)
        _fill_verdict(event, response)
    requests = list(_bodies(record, "full_request", "request_payload"))
    content = Content(
        [message for body in requests for message in _messages(body)], _answer(responses), _calls(responses)
    )
    names = [text(dig(part, "functionCall", "name")) for body in responses for part in _parts(body)]
    event.tool = ",".join(name for name in names if name).lower()
    return close(event, content)


def _bodies(record: Object, whole: str, pieces: str) -> Iterator[Object]:
    """The body, or the chunks of a stream: an object, a list of them, or JSON in texts."""
    found = record.get(whole)
    if found in (None, "", [], {}):
        found = record.get(pieces)
    for item in found if isinstance(found, list) else [found]:
        value = loads(item) if isinstance(item, str) else item
        for body in value if isinstance(value, list) else [value]:
            if isinstance(body, dict):
                yield body


def _fill_usage(event: AccessEvent, response: Object) -> None:
    usage = inner(response, "usageMetadata")
    prompt, answer = count(usage.get("promptTokenCount")), count(usage.get("candidatesTokenCount"))
    thoughts = count(usage.get("thoughtsTokenCount"))
    if prompt is not None:
        event.prompt_tokens = prompt
    if answer is not None or thoughts is not None:  # thinking is paid and counted as output
        event.completion_tokens = (answer or 0) + (thoughts or 0)
    cached = count(usage.get("cachedContentTokenCount"))
    event.cached_tokens = cached if cached is not None else event.cached_tokens
    total = count(usage.get("totalTokenCount"))
    if total is None and (event.prompt_tokens is not None or event.completion_tokens is not None):
        total = (event.prompt_tokens or 0) + (event.completion_tokens or 0)
    event.token_count = total if total is not None else event.token_count
    event.model_version = event.model_version or text(response.get("modelVersion")).lower()


def _fill_verdict(event: AccessEvent, response: Object) -> None:
    blocked = text(dig(response, "promptFeedback", "blockReason")).lower()
    reasons = [text(one.get("finishReason")).lower() for one in _candidates(response)]
    event.finish_reason = next((reason for reason in reasons if reason), event.finish_reason)
    refused = [reason for reason in (blocked, *reasons) if reason in _REFUSED or (reason and reason == blocked)]
    if refused:
        event.outcome_status = event.guardrail_action = "blocked"
        event.guardrail_name = filter_name("gcp.vertex_ai")
        event.guardrail_categories = tuple(dict.fromkeys((*event.guardrail_categories, *refused)))
        event.finish_reason = event.finish_reason or blocked
    error = inner(response, "error")
    if error:
        event.error_code = first(error, "status", "code").lower()
        event.outcome_status = _CODES.get(count(error.get("code")) or 2, "error")


def _candidates(response: Object) -> list[Object]:
    found = response.get("candidates")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _parts(response: Object) -> Iterator[Object]:
    for candidate in _candidates(response):
        yield from _parts_of(inner(candidate, "content"))


def _parts_of(content: Object) -> Iterator[Object]:
    parts = content.get("parts")
    for part in parts if isinstance(parts, list) else [parts]:
        if isinstance(part, dict):
            yield part


def _answer(responses: Sequence[Object]) -> str:
    """All text; the chunks of a stream follow one another without a break."""
    joint = "" if len(responses) > 1 else "\n"
    return joint.join(part["text"] for body in responses for part in _parts(body) if isinstance(part.get("text"), str))


def _calls(responses: Sequence[Object]) -> list[str]:
    calls = [dig(part, "functionCall", "args") for body in responses for part in _parts(body)]
    return [dumps(arguments) for arguments in calls if arguments]


def _messages(body: Object) -> Iterator[Message]:
    system = inner(body, "systemInstruction") or inner(body, "system_instruction")
    spoken = "\n".join(text_of(part) for part in _parts_of(system) if text_of(part))
    if spoken:
        yield Message("system", spoken)
    contents = body.get("contents")
    for item in contents if isinstance(contents, list) else [contents]:
        if not isinstance(item, dict):
            continue
        role = ROLES.get(first(item, "role").lower() or "user", "user")
        for part in _parts_of(item):
            result = dig(part, "functionResponse", "response")
            if result is not None:
                yield Message("tool", dumps(result))
            elif part.get("functionCall"):
                yield Message("assistant", dumps(dig(part, "functionCall", "args")))
            elif text_of(part):
                yield Message(role, text_of(part))


def text_of(part: Object) -> str:
    """The text of one part; pictures and files have none."""
    found: Any = part.get("text")
    return found if isinstance(found, str) else ""
