"""Logs of a Cloudflare AI Gateway (``GET /accounts/{id}/ai-gateway/gateways/{name}/logs``).

Pages are numbered, and a log that is deleted meanwhile would move others to a page that was read. So they are asked for
oldest first, and the next request begins just before the time of the last record; numbers only count on where more
records than a page holds have one time.
"""

from urllib.parse import quote, urlencode

import msgspec

from aitrail.clock import Clock
from aitrail.errors import TransientError
from aitrail.ports import SecretResolver
from aitrail.sources._feeds_settings import CloudflareSettings
from aitrail.sources._rest import Caller, Item, Page, PolledFeed, Window, epoch, iso

# Seconds; whether the border belongs to the window does not matter then.
_BEFORE = 0.002
_PERMISSION = "an API token of the account with the permission AI Gateway: Read"


class _Body(msgspec.Struct):
    result: list[msgspec.Raw] | None = None
    success: bool = True


class _Record(msgspec.Struct):
    id: str = ""
    created_at: str = ""


_body = msgspec.json.Decoder(_Body).decode
_record = msgspec.json.Decoder(_Record).decode


class GatewayLogs:
    """How its pages are asked for and read."""

    record_type = "cloudflare_ai"

    def __init__(self, settings: CloudflareSettings, caller: Caller) -> None:
        self._settings = settings
        self._caller = caller
        account, gateway = quote(settings.account_id, safe=""), quote(settings.gateway, safe="")
        self._path = f"/accounts/{account}/ai-gateway/gateways/{gateway}/logs"
        self.origin = caller.base + self._path

    def page(self, window: Window, token: str) -> Page:
        """One page of the window; the token is where to begin, and which page from there."""
        begin, _, number = token.partition("/") if token else (repr(window.low), "", "1")
        low, page = float(begin), int(number)
        size = self._settings.page_size
        asked = {
            "page": str(page),
            "per_page": str(size),
            "order_by": "created_at",
            "order_by_direction": "asc",
            "start_date": iso(low),
            "end_date": iso(window.high),
        }
        answer = self._caller.get(f"{self._path}?{urlencode(asked)}", {})
        if answer.status >= 300:
            raise TransientError(f"{self.origin} answers {answer.status}", hint=_PERMISSION)
        items = self._read(answer.body)
        if len(items) < size:
            return Page(items)
        last = items[-1].time - _BEFORE
        return Page(items, f"{last!r}/1" if last > low + _BEFORE else f"{low!r}/{page + 1}")

    def probe(self) -> None:
        """Ask for one record."""
        answer = self._caller.get(f"{self._path}?per_page=1", {})
        if answer.status >= 300:
            raise TransientError(f"{self.origin} answers {answer.status}", hint="check account_id and gateway")

    def _read(self, data: bytes) -> list[Item]:
        try:
            body = _body(data)
            items = [Item((found := _record(raw)).id, epoch(found.created_at), bytes(raw)) for raw in body.result or ()]
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise TransientError(f"{self.origin}: the answer is no list of logs") from None
        if not body.success:
            raise TransientError(f"{self.origin}: the answer says that it failed")
        return items


def from_settings(
    settings: CloudflareSettings, *, name: str, clock: Clock, key: bytes, secrets: SecretResolver
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
    return PolledFeed(GatewayLogs(settings, caller), settings, name=name, clock=clock, key=key)
