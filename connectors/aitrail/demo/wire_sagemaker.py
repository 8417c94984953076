"""SageMaker data capture: one JSON line for each captured call; endpoint and variant are only in the object key."""

import base64
from typing import Any

import msgspec

from aitrail.demo.call import Call, Record
from aitrail.demo.times import iso_seconds

_encode = msgspec.json.Encoder().encode


def capture(call: Call, event_id: str) -> Record:
    """The capture record of ``call``: CSV features as base64, JSON prompts as text."""
    if call.model.model_id == "fraud-v3":
        sent = _side("text/csv", "INPUT", base64.b64encode(call.prompt.encode()).decode(), "BASE64")
        back = _side("text/csv; charset=utf-8", "OUTPUT", base64.b64encode(call.answer.encode()).decode(), "BASE64")
    else:
        request = {"inputs": call.prompt, "parameters": {"max_new_tokens": 512, "temperature": 0.1}}
        sent = _side("application/json", "INPUT", _encode(request).decode(), "JSON")
        back = _side("application/json", "OUTPUT", _encode([{"generated_text": call.answer}]).decode(), "JSON")
    meta: dict[str, Any] = {"eventId": event_id, "inferenceTime": iso_seconds(call.start)}
    if call.ticket:
        meta["inferenceId"] = call.ticket
    body = {
        "captureData": {"endpointInput": sent, "endpointOutput": back},
        "eventMetadata": meta,
        "eventVersion": "0",
    }
    return Record(("sagemaker", call.model.model_id), call.start, _encode(body), "sagemaker_capture", event_id)


def _side(content_type: str, mode: str, data: str, encoding: str) -> dict[str, str]:
    return {"observedContentType": content_type, "mode": mode, "data": data, "encoding": encoding}
