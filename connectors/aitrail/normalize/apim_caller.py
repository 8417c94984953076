"""Which calls of API Management concern a model, and who made them (see ``normalize.apim``). Pure and total.

A gateway policy stamps the caller into headers of the request to the backend or of the response; what is only in the
client's own request is the client's word and flagged so.
"""

import tomllib
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

import msgspec

from aitrail.event import AccessEvent, ActionKind
from aitrail.normalize.apim_records import Headers, Row
from aitrail.normalize.azure_common import address_of
from aitrail.normalize.openai_chat import loads
from aitrail.normalize.outcome import Context

_REQUEST_ID = ("apim-request-id", "x-request-id")


class Call(msgspec.Struct, frozen=True):
    """A line of the table: what a call is; ``join`` when the LLM log may hold rows of it."""

    text: str
    kind: ActionKind
    join: bool = False


class _Table(msgspec.Struct, frozen=True):
    path: tuple[Call, ...]
    operation: tuple[Call, ...]
    provider: dict[str, str]
    headers: dict[str, tuple[str, ...]]
    guardrail: dict[str, str]


def _load_table() -> _Table:
    text = resources.files("aitrail.normalize").joinpath("tables/apim.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), _Table)


_TABLE = _load_table()


GUARDRAILS = _TABLE.guardrail


@lru_cache(maxsize=4096)
def call_of(url: str, backend_url: str, operation: str) -> Call | None:
    """What the table says of the call; None when it concerns no model."""
    paths = [f"/{part.partition('?')[0].partition('://')[2].partition('/')[2]}/".lower() for part in (url, backend_url)]
    for call in _TABLE.path:
        if any(call.text in path for path in paths):
            return call
    name = operation.lower()
    return next((call for call in _TABLE.operation if call.text in name), None)


@lru_cache(maxsize=1024)
def provider_of(url: str) -> str:
    """Whose model is behind the backend's host; empty when the table does not know."""
    host = url.partition("://")[2].partition("/")[0].partition(":")[0].lower()
    return next((name for end, name in _TABLE.provider.items() if host == end or host.endswith(f".{end}")), "")


def set_caller(row: Row, event: AccessEvent, context: Context) -> None:
    """Who called: headers stamped by the gateway's policy, else the subscription's owner; and from where."""
    response = _lowered(row.response_headers)
    stamped = {**response, **_lowered(row.backend_request_headers)}
    headers = {**_lowered(row.request_headers), **stamped}  # what the policy set hides what the client sent
    event.user_agent = headers.get("user-agent", "")
    names_of = _header_names(
        context.user_keys,
        context.department_keys,
        context.session_keys,
        context.purpose_keys,
        context.ticket_keys,
        context.tenant_keys,
    )
    for fact, names in names_of.items():
        value = _first(headers, names)
        if value:
            setattr(event, fact, value if fact == "session_id" else value.lower())
    flags = []
    if event.user_id and not _first(stamped, names_of["user_id"]):
        flags.append("caller_header_unverified")  # only the client says so: no policy set or repeated the header
    if not event.user_id:
        event.user_id = (row.user_id or "").lower()
    event.credential_id = row.apim_subscription_id or ""
    event.app = event.app or (row.api_id or row.product_id or "").lower()
    event.request_id = _first(response, _REQUEST_ID) or _first(_lowered(row.backend_response_headers), _REQUEST_ID)
    event.trace_id = _trace_of(headers.get("traceparent", ""))
    if row.caller_ip_address:
        event.src_ip, event.src_host, flag = address_of(row.caller_ip_address)
        flags.append(flag)
    if not event.user_id and not event.credential_id:
        flags.append("identity_missing")
    event.flags = tuple(flag for flag in flags if flag)


@lru_cache(maxsize=64)
def _header_names(
    user: tuple[str, ...],
    department: tuple[str, ...],
    session: tuple[str, ...],
    purpose: tuple[str, ...],
    ticket: tuple[str, ...],
    tenant: tuple[str, ...],
) -> dict[str, tuple[str, ...]]:
    """Event field -> names of the headers that carry it: the table's, then those that the context's keys make."""
    table = _TABLE.headers
    return {
        "user_id": table["user"] + _made(user),
        "user_email": table["email"],
        "user_name": table["name"],
        "department": table["department"] + _made(department),
        "app": table["app"],
        "session_id": table["session"] + _made(session),
        "purpose": table["purpose"] + _made(purpose),
        "ticket": table["ticket"] + _made(ticket),
        "tenant_id": table["tenant"] + _made(tenant) if tenant else (),  # another tenant only when configured
    }


def _made(keys: tuple[str, ...]) -> tuple[str, ...]:
    """``department`` -> ``x-caller-department``, ``x-department``, ``department``."""
    return tuple(f"{start}{key.lower().replace('_', '-')}" for key in keys for start in ("x-caller-", "x-", ""))


def _lowered(headers: Headers) -> dict[str, str]:
    """Headers by lower-case name; values that are no text are left out."""
    value = loads(headers) if isinstance(headers, str) else headers
    if not isinstance(value, dict):
        return {}
    return {name.lower(): text.strip() for name, text in value.items() if isinstance(text, str)}


def _first(headers: dict[str, str], names: Sequence[str]) -> str:
    for name in names:
        value = headers.get(name)
        if value:
            return value
    return ""


def _trace_of(traceparent: str) -> str:
    """Trace id of a W3C ``traceparent`` header."""
    parts = traceparent.split("-")
    return parts[1].lower() if len(parts) == 4 and len(parts[1]) == 32 else ""
