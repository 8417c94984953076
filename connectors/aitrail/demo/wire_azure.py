"""Azure OpenAI diagnostics: RequestResponse (two rows for a request, one with tokens), RequestUsage and Audit.

Shapes after Azure Monitor's resource log schema: ``resourceId`` in upper case, ``Tenant`` is the region, the last octet
of the address is masked, times in ``properties`` are .NET ticks, and ``properties`` is JSON text in some rows.
"""

from functools import lru_cache
from typing import Any

import msgspec

from aitrail.demo.call import Call, Record, client
from aitrail.demo.org import AZURE_REGION, AZURE_SUBSCRIPTION
from aitrail.demo.times import dotnet_ticks, iso_ticks_ms

_encode = msgspec.json.Encoder().encode
ACCOUNTS = {"azure": "OAI-EXAMPLE-WEU", "apim": "OAI-EXAMPLE-WEU", "litellm": "OAI-EXAMPLE-BOT"}
_STATUS = {"success": "200", "blocked": "400", "throttled": "429", "denied": "401", "error": "500"}


@lru_cache(maxsize=64)
def resource_id(account: str) -> str:
    """Resource id of an Azure OpenAI account, in upper case as the logs have it."""
    return (
        f"/SUBSCRIPTIONS/{AZURE_SUBSCRIPTION.upper()}/RESOURCEGROUPS/RG-AI-PLATFORM-PROD-WESTEUROPE/PROVIDERS/"
        f"MICROSOFT.COGNITIVESERVICES/ACCOUNTS/{account}"
    )


@lru_cache(maxsize=4096)
def _masked(ip: str) -> str:
    return ip.rpartition(".")[0] + ".***"


def request_response(call: Call, *, object_id: str, account: str, second_row: bool = True) -> list[Record]:
    """The RequestResponse rows of ``call``; the first row has no tokens and the same correlation id."""
    status = _STATUS[call.status]
    duration = call.latency * 1000
    embedding = call.model.body == "embedding"
    properties: dict[str, Any] = {
        "apiName": "Azure OpenAI API version 2024-10-21",
        "requestTime": dotnet_ticks(call.start),
        "requestLength": 4 * call.prompt_tokens + 180,
        "responseTime": dotnet_ticks(call.start + call.latency),
        "responseLength": 4 * call.completion_tokens + 900,
        "objectId": object_id,
        "streamType": "Streaming" if call.streamed else "Non-Streaming",
        "modelDeploymentName": f"{call.model.alias}-prod",
        "modelName": call.model.model_id,
        "modelVersion": call.model.version,
        "userAgent": client(call),
    }
    body: dict[str, Any] = {
        "Tenant": AZURE_REGION,
        "time": iso_ticks_ms(call.start + call.latency),
        "resourceId": resource_id(account),
        "category": "RequestResponse",
        "operationName": "Embeddings_Create" if embedding else "ChatCompletions_Create",
        "durationMs": str(round(duration)),
        "callerIpAddress": _masked(call.ip),
        "correlationId": call.request_id,
        "event": "ShoeboxCallResult",
        "location": AZURE_REGION,
        "resultSignature": status,
    }
    stream = ("azure", "requestresponse", account)
    rows: list[Record] = []
    if second_row:
        # The row without tokens carries its properties as JSON text.
        first = {**body, "properties": _encode(properties).decode()}
        rows.append(Record(stream, call.start + call.latency, _encode(first), "azure_openai", call.request_id, 0))
    if call.status == "success":
        properties["promptTokens"] = call.prompt_tokens
        properties["completionTokens"] = call.completion_tokens
    body["properties"] = properties
    rows.append(Record(stream, call.start + call.latency + 0.001, _encode(body), "azure_openai", call.request_id))
    return rows


def usage(call: Call, *, account: str) -> Record:
    """The AzureOpenAIRequestUsage row: each number is an array of length one, and there is no caller."""
    body = {
        "Tenant": AZURE_REGION,
        "time": iso_ticks_ms(call.start + call.latency),
        "resourceId": resource_id(account),
        "category": "AzureOpenAIRequestUsage",
        "operationName": "ChatCompletions_Create",
        "correlationId": call.request_id,
        "event": "ShoeboxCallResult",
        "location": AZURE_REGION,
        "resultSignature": _STATUS[call.status],
        "properties": {
            "modelDeploymentName": f"{call.model.alias}-prod",
            "modelName": call.model.model_id,
            "modelVersion": call.model.version,
            "streamType": "Streaming" if call.streamed else "Non-Streaming",
            "promptTokens": [call.prompt_tokens],
            "cachedTokens": [call.cached_tokens],
            "generatedTokens": [call.completion_tokens],
            "timeToFirstTokenMs": round(call.first_token * 1000),
            "timeToLastTokenMs": round(call.latency * 1000),
        },
    }
    stream = ("azure", "azureopenairequestusage", account)
    return Record(stream, call.start + call.latency + 0.002, _encode(body), "azure_openai", call.request_id)


def audit(t: float, *, object_id: str, ip: str, account: str, correlation_id: str) -> Record:
    """An Audit row: somebody read the account's keys (ListKey)."""
    body = {
        "AssetIdentity": resource_id(account).lower(),
        "Tenant": AZURE_REGION,
        "time": iso_ticks_ms(t),
        "resourceId": resource_id(account),
        "category": "Audit",
        "operationName": "ListKey",
        "callerIpAddress": _masked(ip),
        "correlationId": correlation_id,
        "event": "ShoeboxCallResult",
        "location": AZURE_REGION,
        "resultSignature": "200",
        "properties": {"objectId": object_id},
    }
    return Record(("azure", "audit", account), t, _encode(body), "azure_openai", correlation_id)


def rows(call: Call, *, object_id: str, account: str) -> list[Record]:
    """Everything that the provider logs of one call; tokens of about half of the calls only come as usage rows."""
    found = request_response(call, object_id=object_id, account=account, second_row=call.span_id[1] < "8")
    if call.status == "success" and call.span_id[2] < "a":
        found.append(usage(call, account=account))
    return found
