"""CloudTrail records (event version 1.0x-1.11) of AI services, and of IAM, S3, STS and others that concern them.

Management, data and network-activity events become events; Insight, Aggregated and digest records carry no access and
are ``type_unsupported``; everything that the action table does not name is ``not_ai_related``. Sources: CloudTrail user
guide ("Record contents"), and the services' own pages on CloudTrail.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from aitrail.event import AccessEvent, OutcomeStatus, make_event_id
from aitrail.normalize.aws_actions import DEFAULT_TABLE, Action, Plan, Table
from aitrail.normalize.aws_common import address_of, apply_metadata, model_of, tenant_of
from aitrail.normalize.aws_identity import CACHED_BYTES, Identity, identity_of
from aitrail.normalize.aws_paths import NO_GROUP, Scope, as_text
from aitrail.normalize.common import decode, has_duplicate_key, parse_time
from aitrail.normalize.outcome import Context, Normalized, Normalizer, Outcome, Rejected

RECORD_TYPE = "cloudtrail"
_UNSUPPORTED = frozenset({"Insight", "Aggregated", "AwsCloudTrailInsight", "AwsAggregatedEvent"})
_NULL = msgspec.Raw(b"null")
_IDENTIFYING = (b'"userIdentity"', b'"eventID"', b'"eventTime"', b'"eventSource"', b'"eventName"')
_REQUIRED = ("eventID", "eventTime", "eventSource", "eventName")
_USER_KEY = b'"userIdentity":'
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])", re.ASCII)
_BACKSLASH = 0x5C
_HTTP_OUTCOMES: dict[int, OutcomeStatus] = {401: "denied", 403: "denied", 429: "throttled"}
_ANONYMOUS = frozenset({"", "anonymous"})


class _Resource(msgspec.Struct, gc=False):
    ARN: str | None = None
    accountId: str | None = None
    type: str | None = None


class _Addendum(msgspec.Struct, gc=False):
    originalEventID: str | None = None


class _Record(msgspec.Struct, gc=False):
    """The fields that are read, in CloudTrail's order; free-form parts stay undecoded until the table asks for them."""

    eventVersion: str | None = None
    userIdentity: msgspec.Raw = _NULL
    eventTime: str = ""
    eventSource: str = ""
    eventName: str = ""
    awsRegion: str | None = None
    sourceIPAddress: str | None = None
    userAgent: str | None = None
    errorCode: str | None = None
    errorMessage: str | None = None
    requestParameters: msgspec.Raw = _NULL
    responseElements: msgspec.Raw = _NULL
    additionalEventData: msgspec.Raw = _NULL
    requestID: str | None = None
    eventID: str = ""
    readOnly: bool | str | None = None
    resources: list[_Resource] | None = None
    eventType: str | None = None
    recipientAccountId: str | None = None
    sharedEventID: str | None = None
    addendum: _Addendum | None = None
    eventCategory: str | None = None
    sessionCredentialFromConsole: str | bool | None = None


_decoder = msgspec.json.Decoder(_Record)
_any_decoder = msgspec.json.Decoder()


def normalize(raw: bytes, context: Context) -> Sequence[Outcome]:
    """Turn one CloudTrail record into one event or one rejection."""
    return (_normalize(raw, context, DEFAULT_TABLE),)


def with_table(table: Table) -> Normalizer:
    """Give the same normalizer with another action table (``aws_actions.load``)."""

    def normalize_with(raw: bytes, context: Context) -> Sequence[Outcome]:
        return (_normalize(raw, context, table),)

    return normalize_with


def _normalize(raw: bytes, context: Context, table: Table) -> Outcome:
    record = decode(_decoder, raw, RECORD_TYPE)
    if isinstance(record, Rejected):
        return record
    user = bytes(record.userIdentity)
    rejected = _refuse(record, raw, user)
    if rejected is not None:
        return rejected
    plan = table.find(record.eventSource, record.eventName)
    if not plan.actions:
        if any(hint in raw for hint in table.hints):
            plan = table.find_other(record.eventSource, record.eventName)
        if not plan.actions:
            return Rejected("not_ai_related", "", RECORD_TYPE)
    identity = identity_of(user)
    if isinstance(identity, Rejected):
        return identity
    scope = _scope(record, plan, identity)
    if isinstance(scope, Rejected):
        return scope
    for action in plan.actions:
        if not action.when or action.applies(scope):
            break
    else:
        return Rejected("not_ai_related", "", RECORD_TYPE)
    timestamp = _time(record.eventTime)
    if not timestamp:
        return Rejected(parse_time(record.eventTime)[1] or "time_invalid", "eventTime", RECORD_TYPE)
    event = _event(record, action, identity, user, context.tenant_id)
    event.timestamp = timestamp
    _set_resource(event, record, action, scope)
    if not action.plain:
        _set_fields(event, action, scope)
        _set_response_status(event, action, scope, table)
    if record.errorCode:
        event.error_code = record.errorCode.lower()
        event.outcome_status = table.outcome(event.error_code, record.errorMessage or "")
    flags = _flags(event, record, action, scope)
    if not action.plain or not identity.known:
        _set_stated(event, action, scope, context)
        if event.user_id in _ANONYMOUS:
            flags.append("identity_missing")
    if flags:
        event.flags = tuple(flags)
    event.event_id = make_event_id(event.tenant_id, RECORD_TYPE, record.eventID)
    return Normalized(event)


def _refuse(record: _Record, raw: bytes, user: bytes) -> Rejected | None:
    """Say why a decoded record is none of ours: no access, no identity, broken text, contradicting keys."""
    if record.eventCategory in _UNSUPPORTED or record.eventType in _UNSUPPORTED:
        return Rejected("type_unsupported", "eventCategory", RECORD_TYPE)
    if not (record.eventID and record.eventTime and record.eventSource and record.eventName):
        if b'"digestStartTime"' in raw:
            return Rejected("type_unsupported", "digestStartTime", RECORD_TYPE)
        missing = next(name for name in _REQUIRED if not getattr(record, name))
        return Rejected("field_missing", missing, RECORD_TYPE)
    if not raw.isascii():  # what stays undecoded has not been checked yet
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return Rejected("utf8_invalid", "", RECORD_TYPE)
    if _suspicious(record, raw, user) and has_duplicate_key(raw, _IDENTIFYING):
        return Rejected("json_duplicate_key", "", RECORD_TYPE)
    return None


def _suspicious(record: _Record, raw: bytes, user: bytes) -> bool:
    """Whether an identifying key may be there twice; False is certain, True needs the exact check.

    The decoder keeps the last of two userIdentity: when the first one in the text is that very text, no parser can see
    another one. All other identifying keys begin with "event": as many of those as there are different fields means
    that none is there twice. One pass over what follows userIdentity instead of one per key over everything.
    """
    start = raw.find(_USER_KEY)
    if start < 0 or not raw.startswith(user, start + len(_USER_KEY)):
        return True
    expected = len(_REQUIRED) + (record.eventVersion is not None) + (record.eventType is not None)
    expected += record.eventCategory is not None
    seen = raw.count(b'"event', start + len(_USER_KEY) + len(user)) + raw.count(b'"event', 0, start)
    return seen > expected or _BACKSLASH in raw


def _scope(record: _Record, plan: Plan, identity: Identity) -> Scope | Rejected:
    """Decode the free-form parts that the candidates read."""
    request = response = extra = caller = None
    part = ""
    try:
        if plan.request:
            part = "requestParameters"
            request = _any_decoder.decode(record.requestParameters)
        if plan.response:
            part = "responseElements"
            response = _any_decoder.decode(record.responseElements)
        if plan.extra:
            part = "additionalEventData"
            extra = _any_decoder.decode(record.additionalEventData)
    except (msgspec.DecodeError, ValueError, RecursionError):
        again = decode(_any_decoder, bytes(getattr(record, part)), RECORD_TYPE)
        return Rejected(again.code if isinstance(again, Rejected) else "json_invalid", part, RECORD_TYPE)
    if plan.identity:
        caller = {
            "arn": identity.arn,
            "issuer": identity.session_issuer,
            "user": identity.user_name,
            "invoked_by": identity.invoked_by,
        }
    return (request, response, extra, caller, record.resources)


def _event(record: _Record, action: Action, identity: Identity, user: bytes, tenant_id: str) -> AccessEvent:
    """Start the event with what every record has; a record without an error code succeeded.

    A service event is a notice, not a call: it says that something went on, not how it ended.
    """
    make = _cached_start if len(user) <= CACHED_BYTES else _start
    event = _copy(make(user, action, tenant_id))
    event.source_event_id = record.eventID
    event.src_ip, event.src_host, _ = address_of(record.sourceIPAddress or "")
    event.user_agent = record.userAgent or ""
    event.request_id = record.requestID or ""
    read_only = record.readOnly
    event.read_only = _flag_text(read_only) if isinstance(read_only, str) else read_only
    event.cloud_account = (record.recipientAccountId or identity.account).lower()
    event.cloud_region = (record.awsRegion or "").lower()
    if record.sessionCredentialFromConsole is not None and _true(record.sessionCredentialFromConsole):
        event.principal_type = "human"
    if record.eventType == "AwsServiceEvent":
        event.outcome_status = "unknown"
    return event


def _start(user: bytes, action: Action, tenant_id: str) -> AccessEvent:
    """Give the part of an event that caller and call decide; copied for each record, never changed."""
    identity = identity_of(user)
    assert isinstance(identity, Identity)
    return AccessEvent(
        event_id="",
        timestamp="",
        tenant_id=tenant_id,
        source=RECORD_TYPE,
        principal_type=identity.principal_type,
        user_id=identity.user_id,
        user_name=identity.user_name,
        user_email=identity.user_email,
        role=identity.role,
        session_issuer=identity.session_issuer,
        credential_id=identity.credential_id,
        mfa=identity.mfa,
        agent=identity.agent,
        action=action.action,
        action_kind=action.kind,
        service=action.service,
        cloud_provider="aws",
        outcome_status="success",
    )


_copy: Callable[[AccessEvent], AccessEvent] = AccessEvent.__copy__  # type: ignore[attr-defined]  # not in its stub
_cached_start = lru_cache(maxsize=8192)(_start)


@lru_cache(maxsize=4096)
def _time(text: str) -> str:
    return parse_time(text)[0]


def _set_resource(event: AccessEvent, record: _Record, action: Action, scope: Scope) -> None:
    """Fill the resource by the table's pairs, else from resources[], and the model that it or a parameter names."""
    resources = record.resources
    arn = kind = ""
    if resources:
        arn = resources[0].ARN or ""
        kind = _kind(resources[0].type or "")
        owner = resources[0].accountId
        if owner is None:
            owner = next((item.accountId for item in resources if item.accountId), None)
        if owner and event.cloud_account and owner != event.cloud_account:
            event.target_account = owner
    found: Sequence[Any] = ()
    for getter, name in action.resource:
        found = getter(scope)
        if found:
            arn, kind = as_text(found[0]), name or kind
            break
    event.resource_id, event.resource_type = arn, kind
    if action.model is not NO_GROUP:
        model_id = arn if kind == "model-id" else action.model.first(scope)
        if model_id:
            model = model_of(model_id)
            event.model, event.model_version, event.model_provider = model.model, model.version, model.provider
            if kind == "model-id":
                event.resource_type = model.kind
    elif action.kind == "inference" and ":endpoint/" in arn:
        event.model = arn.rpartition("/")[2].lower()
    if action.guardrail is not NO_GROUP:
        event.guardrail_name = action.guardrail.first(scope).lower()


@lru_cache(maxsize=1024)
def _kind(resource_type: str) -> str:
    """``AWS::SageMaker::FeatureGroup`` as ``feature-group``, the spelling of ARNs."""
    return _WORD_START.sub("-", resource_type.rpartition("::")[2]).lower()


def _set_fields(event: AccessEvent, action: Action, scope: Scope) -> None:
    """Fill what the table says is in the free-form parts."""
    if action.model_name is not NO_GROUP:
        event.model = event.model or action.model_name.first(scope).rpartition("/")[2].lower()
    event.passed_role = action.passed_role.every(scope)
    event.destination_uri = action.destination.every(scope)
    event.target_account = action.account.foreign_accounts(scope, event.cloud_account) or event.target_account
    event.agent = action.agent.first(scope).rpartition("/")[2].lower() or event.agent
    event.session_id = action.session.first(scope)
    event.tool = action.tool.first(scope).lower()
    event.app = action.app.first(scope).lower()


def _set_response_status(event: AccessEvent, action: Action, scope: Scope, table: Table) -> None:
    """Read the status from responseElements: AgentCore gateways answer 401 there and set no errorCode."""
    if action.http_status is NO_GROUP:
        return
    text = action.http_status.first(scope)
    status = int(text) if len(text) == 3 and text.isascii() and text.isdigit() else 0
    event.http_status = status or None
    event.error_code = action.error_code.first(scope).lower()
    if status in _HTTP_OUTCOMES:
        event.outcome_status = _HTTP_OUTCOMES[status]
    elif status >= 400 or event.error_code:
        event.outcome_status = table.outcome(event.error_code, "")


def _flags(event: AccessEvent, record: _Record, action: Action, scope: Scope) -> list[str]:
    """Collect the flags, and what belongs to the action but is in no parameter: tokens, Region, related records."""
    flags: list[str] = []
    if event.src_host:
        flag = address_of(record.sourceIPAddress or "")[2]
        if flag:
            flags.append(flag)
    if scope[2] is not None:
        _set_extra(event, scope[2], flags)
    if action.bearer is not NO_GROUP and action.bearer.first(scope) == "true":
        flags.append("bearer_token")
    if record.sharedEventID or record.addendum is not None:
        original = record.addendum.originalEventID if record.addendum is not None else None
        event.related_ids = tuple(item for item in (record.sharedEventID, original) if item)
        if record.addendum is not None:
            flags.append("addendum")
    if record.eventCategory == "NetworkActivity":
        flags.append("network_activity")
    if record.eventType == "AwsServiceEvent":
        flags.append("service_event")
    return flags


def _set_extra(event: AccessEvent, extra: Any, flags: list[str]) -> None:
    """Read additionalEventData of Bedrock calls: tokens, the Region that answered, whether an API key was used."""
    if not isinstance(extra, dict):
        return
    event.prompt_tokens = _count(extra.get("inputTokens"))
    event.completion_tokens = _count(extra.get("outputTokens"))
    if event.prompt_tokens is not None and event.completion_tokens is not None:
        event.token_count = event.prompt_tokens + event.completion_tokens
    region = extra.get("inferenceRegion")
    if isinstance(region, str) and region.lower() != event.cloud_region:
        event.inference_region = region.lower()
    if _true(extra.get("callWithBearerToken")):
        flags.append("bearer_token")


def _set_stated(event: AccessEvent, action: Action, scope: Scope, context: Context) -> None:
    """Fill facts that the caller stated, and the caller of a gateway that IAM knows only as anonymous."""
    user = action.user.first(scope).lower()
    if user and event.user_id in _ANONYMOUS:
        event.user_id = event.user_name = user
        event.user_email = user if "@" in user else ""
        event.credential_id = event.credential_id or action.credential.first(scope)
    for metadata in action.metadata.values(scope):
        if isinstance(metadata, dict):
            event.tenant_id = tenant_of(metadata, context)
            apply_metadata(event, metadata, context)


def _true(value: Any) -> bool:
    return value is not None and (value is True or _flag_text(value) is True)


def _flag_text(value: Any) -> bool | None:
    """``"true"`` and ``"false"``, as some writers of the log spell booleans; None for anything else."""
    return {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    """A token count: logs write it as a number, some exports as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None
