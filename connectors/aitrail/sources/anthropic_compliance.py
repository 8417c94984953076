"""Activities of Anthropic's Compliance API (``GET /v1/compliance/activities``).

Newest first; ``after_id`` takes the last id of a page. The borders of time are given with every page.
"""

from urllib.parse import urlencode

import msgspec

from aitrail.clock import Clock
from aitrail.errors import TransientError
from aitrail.ports import SecretResolver
from aitrail.sources._feeds_settings import AnthropicSettings
from aitrail.sources._rest import Caller, Item, Page, PageExpired, PolledFeed, Window, epoch, iso

_PATH = "/v1/compliance/activities"
_PERMISSION = "a compliance access key or admin key with the scope read:compliance_activities"
_VERSION = {"anthropic-version": "2023-06-01"}


class _Body(msgspec.Struct):
    data: list[msgspec.Raw] = []
    has_more: bool = False
    last_id: str | None = None


class _Record(msgspec.Struct):
    id: str = ""
    created_at: str = ""


_body = msgspec.json.Decoder(_Body).decode
_record = msgspec.json.Decoder(_Record).decode


class Activities:
    """How its pages are asked for and read."""

    record_type = "anthropic_compliance"

    def __init__(self, settings: AnthropicSettings, caller: Caller) -> None:
        self._settings = settings
        self._caller = caller
        self.origin = caller.base + _PATH

    def page(self, window: Window, token: str) -> Page:
        """One page of the window."""
        asked = {
            "limit": str(min(self._settings.page_size, 1000)),
            "created_at.gte": iso(window.low),
            "created_at.lt": iso(window.high),
        }
        if token:
            asked["after_id"] = token
        answer = self._caller.get(f"{_PATH}?{urlencode(asked)}", _VERSION, auth="x-api-key")
        if answer.status >= 300:
            if token and answer.status in (400, 404, 410):
                raise PageExpired
            raise TransientError(f"{self.origin} answers {answer.status}", hint=_PERMISSION)
        return self._read(answer.body)

    def probe(self) -> None:
        """Ask for one record."""
        answer = self._caller.get(f"{_PATH}?limit=1", _VERSION, auth="x-api-key")
        if answer.status >= 300:
            raise TransientError(f"{self.origin} answers {answer.status}", hint=_PERMISSION)

    def _read(self, data: bytes) -> Page:
        try:
            body = _body(data)
            items = [Item((found := _record(raw)).id, epoch(found.created_at), bytes(raw)) for raw in body.data]
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise TransientError(f"{self.origin}: the answer is no list of activities") from None
        last = body.last_id or (items[-1].ident if items else "")
        return Page(items, last if body.has_more else "")


def from_settings(
    settings: AnthropicSettings, *, name: str, clock: Clock, key: bytes, secrets: SecretResolver
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
    return PolledFeed(Activities(settings, caller), settings, name=name, clock=clock, key=key)
