"""API Management as a gateway: GatewayLogs (who) and GatewayLlmLogs (what), joined by the correlation id.

GatewayLlmLogs has no caller column and cuts messages at 32 KB into rows with a sequence number. ``properties`` is
camelCase on Event Hub and Blob, as in the diagnostic log's JSON. The gateway policy stamps ``x-caller-*`` headers.
"""

from typing import Any

import msgspec

from aitrail.demo.call import Call, Record, client
from aitrail.demo.org import AZURE_REGION, AZURE_SUBSCRIPTION, digest
from aitrail.demo.times import iso_ticks

_encode = msgspec.json.Encoder().encode
_STATUS = {"success": 200, "blocked": 400, "throttled": 429, "denied": 401, "error": 500}
RESOURCE_ID = (
    f"/SUBSCRIPTIONS/{AZURE_SUBSCRIPTION.upper()}/RESOURCEGROUPS/RG-AI-PLATFORM-PROD-WESTEUROPE/PROVIDERS/"
    "MICROSOFT.APIMANAGEMENT/SERVICE/APIM-EXAMPLE"
)
CHUNK = 32 * 1024
_HOST = "https://apim-example.azure-api.net"


def gateway(call: Call) -> Record:
    """The GatewayLogs row of ``call``: caller, status, time; the content filter's verdict when it blocked."""
    status = _STATUS[call.status]
    blocked = call.status == "blocked"
    duration = round(call.latency * 1000)
    path = f"openai/deployments/{call.model.alias}-prod/chat/completions?api-version=2024-10-21"
    headers = {
        "User-Agent": client(call),
        "x-caller-id": call.actor.user_id,
        "x-caller-department": call.app.department,
        "x-session-id": call.session,
    }
    if call.purpose:
        headers["x-purpose"] = call.purpose
    properties: dict[str, Any] = {
        "method": "POST",
        "url": f"{_HOST}/{path}",
        "backendResponseCode": status,
        "responseCode": status,
        "responseSize": 4 * call.completion_tokens + 1400,
        "cache": "none",
        "backendTime": max(0, duration - 14),
        "requestSize": 4 * call.prompt_tokens + 900,
        "apiId": call.app.name,
        "operationId": "ChatCompletions_Create",
        "productId": f"ai-{call.app.department}",
        "userId": call.actor.user_id,
        "apimSubscriptionId": digest(f"apim/{call.app.name}/{call.app.department}", 24),
        "clientProtocol": "HTTP/1.1",
        "backendProtocol": "HTTP/1.1",
        "backendMethod": "POST",
        "backendUrl": f"https://oai-example-weu.openai.azure.com/{path}",
        "backendId": "oai-example-weu",
        "apiRevision": "3",
        "clientTlsVersion": "1.3",
        "requestHeaders": headers,
        "responseHeaders": {"apim-request-id": call.request_id},
    }
    if blocked and call.guard is not None:
        properties["responseBody"] = _filter_body(call.guard.category)
    if status >= 400:
        properties["lastError"] = {
            "elapsed": duration,
            "source": "forward-request",
            "scope": "api",
            "section": "backend",
            "reason": "BackendResponse" if not blocked else "ContentFilter",
            "message": f"The backend answered with status {status}.",
        }
    body = {
        "DeploymentVersion": "0.46.17263.0",
        "Level": 4,
        "isRequestSuccess": status < 400,
        "time": iso_ticks(call.start),
        "operationName": "Microsoft.ApiManagement/GatewayLogs",
        "category": "GatewayLogs",
        "durationMs": duration,
        "callerIpAddress": call.ip,
        "correlationId": call.call_id,
        "location": "West Europe",
        "properties": properties,
        "resourceId": RESOURCE_ID,
    }
    return Record(("apim", "gatewaylogs"), call.start + call.latency, _encode(body), "apim", call.call_id)


def _filter_body(category: str) -> str:
    """The 400 body of the Azure content filter, as body logging keeps it."""
    clean = {"filtered": False, "severity": "safe"}
    return _encode(
        {
            "error": {
                "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management "
                "policy. Please modify your prompt and retry.",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {
                        "hate": clean,
                        "self_harm": clean,
                        "sexual": clean,
                        "violence": clean,
                        category: {"filtered": True, "detected": True},
                    },
                },
            }
        }
    ).decode()


def llm(call: Call) -> list[Record]:
    """The GatewayLlmLogs rows of ``call``: one, or several when the messages are longer than 32 KB."""
    messages: list[dict[str, str]] = [{"role": "system", "content": call.app.system}]
    for asked, answered in call.history:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    messages.append({"role": "user", "content": call.prompt})
    asked_text = _encode(messages).decode()
    answer = [{"role": "assistant", "content": call.answer}] if call.status == "success" else []
    answer_text = _encode(answer).decode() if answer else ""
    pieces = max(1, -(-len(asked_text) // CHUNK), -(-len(answer_text) // CHUNK))
    rows: list[Record] = []
    for index in range(pieces):
        properties: dict[str, Any] = {
            "requestId": f"chatcmpl-{call.trace_id[:24]}" if answer else "",
            "sequenceNumber": index,
            "operationName": "ChatCompletions_Create",
            "deploymentName": f"{call.model.alias}-prod",
            "modelName": f"{call.model.model_id}-{call.model.version}",
            "apiVersion": "2024-10-21",
            "region": AZURE_REGION,
            "isStreamCompletion": call.streamed,
            "requestMessages": asked_text[index * CHUNK : (index + 1) * CHUNK] if pieces > 1 else messages,
            "responseMessages": answer_text[index * CHUNK : (index + 1) * CHUNK] if pieces > 1 else answer,
        }
        if index == pieces - 1 and call.status == "success":
            properties["promptTokens"] = call.prompt_tokens
            properties["completionTokens"] = call.completion_tokens
            properties["totalTokens"] = call.prompt_tokens + call.completion_tokens
            properties["promptCachedTokens"] = call.cached_tokens
        body = {
            "time": iso_ticks(call.start + call.latency),
            "operationName": "Microsoft.ApiManagement/GatewayLlmLogs",
            "category": "GatewayLlmLogs",
            "correlationId": call.call_id,
            "location": "West Europe",
            "properties": properties,
            "resourceId": RESOURCE_ID,
        }
        at = call.start + call.latency + index * 0.001
        rows.append(Record(("apim", "gatewayllmlogs"), at, _encode(body), "apim", call.call_id, 0))
    return rows


def rows(call: Call) -> list[Record]:
    """Everything that the gateway logs of one call."""
    return [gateway(call), *llm(call)]
