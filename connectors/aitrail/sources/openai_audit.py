"""The audit log of an OpenAI organization (``GET /v1/organization/audit_logs``).

Newest first; ``after`` takes the id of the last record of a page. The feed needs an admin key, and audit logging must
be turned on in the organization's settings.
"""

from urllib.parse import urlencode

import msgspec

from aitrail.clock import Clock
from aitrail.errors import TransientError
from aitrail.ports import SecretResolver
from aitrail.sources._feeds_settings import OpenAiAuditSettings
from aitrail.sources._rest import Caller, Item, Page, PageExpired, PolledFeed, Window

_PATH = "/v1/organization/audit_logs"
_PERMISSION = "an admin key (sk-admin-…) with the scope api.audit_logs.read; audit logging must be turned on"


class _Body(msgspec.Struct):
    data: list[msgspec.Raw] = []
    has_more: bool = False
    last_id: str | None = None


class _Record(msgspec.Struct):
    id: str = ""
    effective_at: float = 0.0


_body = msgspec.json.Decoder(_Body).decode
_record = msgspec.json.Decoder(_Record).decode


class OpenAiAudit:
    """How its pages are asked for and read."""

    record_type = "openai_audit"

    def __init__(self, settings: OpenAiAuditSettings, caller: Caller) -> None:
        self._settings = settings
        self._caller = caller
        self.origin = caller.base + _PATH

    def page(self, window: Window, token: str) -> Page:
        """One page of the window."""
        # Seconds: the borders are widened to whole ones, what is read twice is known.
        asked = [
            ("limit", str(min(self._settings.page_size, 100))),
            ("effective_at[gte]", str(int(window.low))),
            ("effective_at[lt]", str(int(window.high) + 1)),
            *(("project_ids[]", one) for one in self._settings.project_ids),
            *([("after", token)] if token else []),
        ]
        answer = self._caller.get(f"{_PATH}?{urlencode(asked)}", {})
        if answer.status >= 300:
            if token and answer.status in (400, 404, 410):
                raise PageExpired
            raise TransientError(f"{self.origin} answers {answer.status}", hint=_PERMISSION)
        return self._read(answer.body)

    def probe(self) -> None:
        """Ask for one record."""
        answer = self._caller.get(f"{_PATH}?limit=1", {})
        if answer.status >= 300:
            raise TransientError(f"{self.origin} answers {answer.status}", hint=_PERMISSION)

    def _read(self, data: bytes) -> Page:
        try:
            body = _body(data)
            items = [Item((found := _record(raw)).id, found.effective_at, bytes(raw)) for raw in body.data]
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise TransientError(f"{self.origin}: the answer is no list of audit logs") from None
        last = body.last_id or (items[-1].ident if items else "")
        return Page(items, last if body.has_more else "")


def from_settings(
    settings: OpenAiAuditSettings, *, name: str, clock: Clock, key: bytes, secrets: SecretResolver
) -> PolledFeed:
    """Make the source."""
    caller = Caller(
        settings.base_url,
        settings,
        where=f"sources.{name}",
        reference=settings.token,
        secrets=secrets,
        clock=clock,
        permission=_PERMISSION,
    )
    return PolledFeed(OpenAiAudit(settings, caller), settings, name=name, clock=clock, key=key)
