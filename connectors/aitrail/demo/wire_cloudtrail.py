"""CloudTrail records (version 1.11): Bedrock and SageMaker inference, control plane, S3 objects.

Shapes after the CloudTrail record contents reference: Bedrock inference is a management event without the prompt,
SageMaker inference a data event without request parameters, whose endpoint is only in ``resources``.
"""

from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from aitrail.demo.call import Call, Record
from aitrail.demo.org import ACCOUNT, Actor, Person, Service
from aitrail.demo.times import iso_seconds

_encode = msgspec.json.Encoder().encode
_NULL = Raw(b"null")
_CIPHER = "TLS_AES_128_GCM_SHA256"
_ERRORS = {
    "throttled": ("ThrottlingException", "Too many requests, please wait before trying again."),
    "denied": ("AccessDenied", "You don't have access to the model with the specified model ID."),
    "error": ("InternalServerException", "An internal server error occurred. Retry your request."),
}


class Api(msgspec.Struct, gc=False, kw_only=True):
    """One API call as CloudTrail sees it. ``error`` is (code, message); ``resources`` are (ARN, type) pairs."""

    time: float
    source: str
    name: str
    identity: Raw
    event_id: str
    request_id: str
    ip: str
    agent: str
    region: str = "eu-west-1"
    request: Any = _NULL
    response: Any = _NULL
    extra: dict[str, Any] | None = None
    read_only: bool = False
    data_event: bool = False
    resources: tuple[tuple[str, str], ...] = ()
    error: tuple[str, str] | None = None
    host: str = ""
    account: str = ACCOUNT
    console: bool = False
    foreign: str = ""


def record(api: Api) -> Record:
    """Write ``api`` as one CloudTrail record."""
    body: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": api.identity,
        "eventTime": iso_seconds(api.time),
        "eventSource": api.source,
        "eventName": api.name,
        "awsRegion": api.region,
        "sourceIPAddress": api.ip,
        "userAgent": api.agent,
    }
    if api.error:
        body["errorCode"], body["errorMessage"] = api.error
    body["requestParameters"] = api.request
    body["responseElements"] = _NULL if api.error else api.response
    if api.extra:
        body["additionalEventData"] = api.extra
    body["requestID"] = api.request_id
    body["eventID"] = api.event_id
    body["readOnly"] = api.read_only
    if api.resources:
        body["resources"] = [{"accountId": api.account, "type": kind, "ARN": arn} for arn, kind in api.resources]
    body["eventType"] = "AwsApiCall"
    body["managementEvent"] = not api.data_event
    body["recipientAccountId"] = ACCOUNT
    body["eventCategory"] = "Data" if api.data_event else "Management"
    body["tlsDetails"] = {
        "tlsVersion": "TLSv1.3",
        "cipherSuite": _CIPHER,
        "clientProvidedHostHeader": api.host or f"{api.source.partition('.')[0]}.{api.region}.amazonaws.com",
    }
    if api.console:
        body["sessionCredentialFromConsole"] = "true"
    return Record(
        ("cloudtrail", api.region),
        api.time,
        _encode(body),
        "cloudtrail",
        api.event_id,
        0 if api.foreign else 1,
        api.foreign,
    )


def identity(actor: Actor, t: float, *, mfa: bool | None = None) -> Raw:
    """``userIdentity`` of a person's SSO session (opened at eight) or of a service's role session."""
    if isinstance(actor, Person):
        return _sso(actor, int(t // 86400), True if mfa is None else mfa)
    return _role(actor, int(t // 3600))


@lru_cache(maxsize=8192)
def _sso(person: Person, day: int, mfa: bool) -> Raw:
    issuer_path = f"aws-reserved/sso.amazonaws.com/eu-west-1/{person.sso_role}"
    return _assumed(person.sso_role, issuer_path, person.principal, person.user_id, day * 86400 + 28800, mfa=mfa)


@lru_cache(maxsize=8192)
def _role(service: Service, hour: int) -> Raw:
    return _assumed(service.role, service.role, service.principal, service.user_id, hour * 3600, mfa=False)


def _assumed(role: str, path: str, principal: str, session: str, created: int, *, mfa: bool) -> Raw:
    return Raw(
        _encode(
            {
                "type": "AssumedRole",
                "principalId": f"{principal}:{session}",
                "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{session}",
                "accountId": ACCOUNT,
                "accessKeyId": "ASIAIOSFODNN7EXAMPLE",
                "sessionContext": {
                    "sessionIssuer": {
                        "type": "Role",
                        "principalId": principal,
                        "arn": f"arn:aws:iam::{ACCOUNT}:role/{path}",
                        "accountId": ACCOUNT,
                        "userName": role,
                    },
                    "attributes": {"creationDate": iso_seconds(created), "mfaAuthenticated": str(mfa).lower()},
                },
            }
        )
    )


@lru_cache(maxsize=64)
def iam_user(name: str, key: str) -> Raw:
    """``userIdentity`` of an IAM user with a long-lived access key."""
    return Raw(
        _encode(
            {
                "type": "IAMUser",
                "principalId": "AIDACKCEVSQ6C2EXAMPLE",
                "arn": f"arn:aws:iam::{ACCOUNT}:user/{name}",
                "accountId": ACCOUNT,
                "accessKeyId": key,
                "userName": name,
            }
        )
    )


def model_arn(model_id: str, region: str) -> str:
    """ARN of a foundation model or of a cross-region inference profile."""
    if model_id.startswith(("eu.", "us.", "apac.")):
        return f"arn:aws:bedrock:{region}:{ACCOUNT}:inference-profile/{model_id}"
    return f"arn:aws:bedrock:{region}::foundation-model/{model_id}"


def operation(call: Call) -> str:
    """The Bedrock runtime operation that made the call."""
    if call.model.body == "converse":
        return "ConverseStream" if call.streamed else "Converse"
    return "InvokeModelWithResponseStream" if call.streamed else "InvokeModel"


def bedrock(call: Call, *, key: Raw | None = None, agent: str = "") -> Record:
    """The management event of a Bedrock call."""
    model_id = call.model.model_id
    extra: dict[str, Any] = {"inputTokens": call.prompt_tokens, "outputTokens": call.completion_tokens}
    if model_id.startswith("eu."):
        extra["inferenceRegion"] = "eu-central-1" if call.span_id[0] < "8" else "eu-north-1"
    failed = call.status in _ERRORS
    request: dict[str, Any] = {"modelId": model_id}
    if call.guard and call.guard.by == "bedrock":
        request["guardrailIdentifier"] = call.guard.name
        request["guardrailVersion"] = "3"
    return record(
        Api(
            time=call.start,
            source="bedrock.amazonaws.com",
            name=operation(call),
            identity=key if key is not None else identity(call.actor, call.start),
            event_id=call.call_id,
            request_id=call.request_id,
            ip=call.ip,
            agent=agent or call.actor.agent,
            region=call.region,
            request=request,
            extra=None if failed else extra,
            read_only=True,
            resources=((model_arn(model_id, call.region), "AWS::Bedrock::Model"),),
            error=_ERRORS[call.status] if failed else None,
            host=f"bedrock-runtime.{call.region}.amazonaws.com",
        )
    )


def endpoint(call: Call) -> Record:
    """The data event of a SageMaker endpoint call: no request parameters, the endpoint is in ``resources``."""
    name = call.model.model_id
    return record(
        Api(
            time=call.start,
            source="sagemaker.amazonaws.com",
            name="InvokeEndpoint",
            identity=identity(call.actor, call.start),
            event_id=call.call_id,
            request_id=call.request_id,
            ip=call.ip,
            agent=call.actor.agent,
            region=call.region,
            read_only=False,
            data_event=True,
            resources=((f"arn:aws:sagemaker:{call.region}:{ACCOUNT}:endpoint/{name}", "AWS::SageMaker::Endpoint"),),
            error=_ERRORS.get(call.status),
            host=f"runtime.sagemaker.{call.region}.amazonaws.com",
        )
    )
