# ruff: noqa: N815  (field names are the records' own)
"""The decode-only ceiling: what decoding alone costs, in the same run on the same records.

``typed`` decodes into a Struct of the fields that an event needs and builds nothing else: no faster pipeline can be
written in Python on this library. ``json`` is ``json.loads``, what a plain script would start with.
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec


class _Issuer(msgspec.Struct, gc=False):
    arn: str = ""


class _Attributes(msgspec.Struct, gc=False):
    mfaAuthenticated: str = ""


class _Session(msgspec.Struct, gc=False):
    sessionIssuer: _Issuer | None = None
    attributes: _Attributes | None = None


class _Identity(msgspec.Struct, gc=False):
    type: str = ""
    principalId: str = ""
    arn: str = ""
    accountId: str = ""
    accessKeyId: str = ""
    userName: str = ""
    sessionContext: _Session | None = None


class _Resource(msgspec.Struct, gc=False):
    ARN: str = ""
    type: str = ""


class CloudTrail(msgspec.Struct, gc=False):
    """The fields of a CloudTrail record that become part of an event."""

    eventID: str
    eventTime: str
    eventSource: str
    eventName: str
    awsRegion: str
    userIdentity: _Identity
    sourceIPAddress: str = ""
    userAgent: str = ""
    requestParameters: msgspec.Raw = msgspec.Raw(b"null")
    errorCode: str = ""
    requestID: str = ""
    readOnly: bool | None = None
    recipientAccountId: str = ""
    resources: list[_Resource] = []


class _Properties(msgspec.Struct, gc=False):
    requestTime: int = 0
    responseTime: int = 0
    objectId: str = ""
    modelDeploymentName: str = ""
    modelName: str = ""
    modelVersion: str = ""
    promptTokens: int | None = None
    completionTokens: int | None = None
    userAgent: str = ""


class Azure(msgspec.Struct, gc=False):
    """The fields of an Azure OpenAI diagnostic record that become part of an event."""

    time: str
    resourceId: str
    category: str
    operationName: str
    correlationId: str
    callerIpAddress: str = ""
    resultSignature: str = ""
    location: str = ""
    properties: _Properties | str = ""


class _Message(msgspec.Struct, gc=False):
    role: str = ""
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    finish_reason: str = ""


class _Response(msgspec.Struct, gc=False):
    model: str = ""
    choices: list[_Choice] = []


class _Metadata(msgspec.Struct, gc=False):
    user_api_key_hash: str | None = None
    user_api_key_alias: str | None = None
    user_api_key_user_id: str | None = None
    user_api_key_user_email: str | None = None
    user_api_key_team_alias: str | None = None
    user_api_key_auth_metadata: dict[str, Any] | None = None
    requester_metadata: dict[str, Any] | None = None


class LiteLLM(msgspec.Struct, gc=False):
    """The fields of a LiteLLM record that become part of an event."""

    litellm_call_id: str
    startTime: float | str
    endTime: float | str
    metadata: _Metadata
    messages: list[_Message]
    response: _Response
    session_id: str = ""
    trace_id: str = ""
    status: str = ""
    model: str = ""
    model_group: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    response_cost: float = 0.0
    end_user: str = ""
    requester_ip_address: str = ""
    user_agent: str = ""


TYPED: dict[str, Callable[[bytes], Any]] = {
    "cloudtrail": msgspec.json.Decoder(CloudTrail).decode,
    "azure_openai": msgspec.json.Decoder(Azure).decode,
    "litellm": msgspec.json.Decoder(LiteLLM).decode,
}
PLAIN: Callable[[bytes], Any] = json.loads
