"""What the AWS record types share: model ids, addresses, and facts that callers state in request metadata."""

import re
from functools import lru_cache
from typing import Any

import msgspec

from aitrail.event import AccessEvent
from aitrail.normalize.aws_actions import DEFAULT_TABLE
from aitrail.normalize.aws_paths import as_text
from aitrail.normalize.common import split_address
from aitrail.normalize.outcome import Context

# The end of a model id that says which build: 20250514-v1:0, v2:1, v3-5:0, v1:0:200k, 1:0, v1, 20250514.
_VERSION = re.compile(r"(.+?)-((?:\d{8}-)?v\d+(?:-\d+)?(?::\w+)*|\d+(?::\w+)+|\d{8})", re.ASCII)
_NOT_A_HOST = re.compile(r"[0-9x.*]+|.*:.*", re.ASCII)  # an address with a wrong or masked part
_OWN_NAMES = frozenset({"endpoint", "foundation-model", "inference-profile"})


class Model(msgspec.Struct, frozen=True, gc=False):
    """A model id taken apart; all lower-case. ``kind`` is the resource type that the id names."""

    model: str = ""
    version: str = ""
    provider: str = ""
    kind: str = ""


@lru_cache(maxsize=4096)
def model_of(model_id: str) -> Model:
    """Take a Bedrock model id, inference-profile id or ARN apart (Bedrock user guide, "Supported foundation models").

    ``arn:aws:bedrock:us-east-1::foundation-model/`` and the geographic prefix of an inference profile are no part of
    the model. Application profiles, provisioned, custom and imported models keep their type in the name: the ARN does
    not say which model is behind them.
    """
    text = model_id.strip().lower()
    kind = ""
    if text.startswith("arn:"):
        resource = text.split(":", 5)[-1]
        kind, _, name = resource.partition("/")
        text = name if kind in _OWN_NAMES else resource
        if kind == "custom-model":  # custom-model/<base model>/<id>
            return Model(text, provider=_provider(name), kind=kind)
        if kind not in _OWN_NAMES or kind == "endpoint":
            return Model(text, kind=kind)
    prefix, _, rest = text.partition(".")
    if prefix in DEFAULT_TABLE.geo_prefixes and "." in rest:
        text = rest
        kind = kind or "inference-profile"
    match = _VERSION.fullmatch(text)
    model, version = (match.group(1), match.group(2)) if match else (text, "")
    return Model(model, version, _provider(text), kind or "foundation-model")


def _provider(text: str) -> str:
    """The vendor's name: the part before the first dot, when there is one."""
    vendor, dot, _ = text.partition(".")
    return vendor if dot and "/" not in vendor else ""


@lru_cache(maxsize=16384)
def address_of(text: str) -> tuple[str, str, str]:
    """``(src_ip, src_host, flag)``; the flag is src_ip_invalid when the text is meant as an address but is none."""
    ip, host = split_address(text[:512])
    return ip, host, "src_ip_invalid" if host and _NOT_A_HOST.fullmatch(host) else ""


def apply_metadata(event: AccessEvent, metadata: dict[str, Any], context: Context) -> None:
    """Fill in what the caller stated as metadata, under the names that the context gives; first match wins.

    A stated user replaces the one of the credential (the role stays): behind a shared role it is the person.
    """
    user = _stated(metadata, context.user_keys)
    if user:
        event.user_id = user
        event.user_name = user
        event.user_email = user if "@" in user else ""
        event.principal_type = "human"
    event.department = _stated(metadata, context.department_keys) or event.department
    event.purpose = _stated(metadata, context.purpose_keys) or event.purpose
    event.ticket = _stated(metadata, context.ticket_keys) or event.ticket
    event.session_id = _stated(metadata, context.session_keys, lower=False) or event.session_id


def tenant_of(metadata: Any, context: Context) -> str:
    """The tenant that the metadata names, when the context allows that; else the context's own."""
    if context.tenant_keys and isinstance(metadata, dict):
        return _stated(metadata, context.tenant_keys) or context.tenant_id
    return context.tenant_id


def _stated(metadata: dict[str, Any], keys: tuple[str, ...], *, lower: bool = True) -> str:
    for key in keys:
        text = as_text(metadata.get(key)).strip()
        if text:
            return text.lower() if lower else text
    return ""
