"""Polling of feeds over HTTP: windows of time, pages, an overlap, and ids that were seen. One place for all of them.

The stream is read in windows, oldest first, each to its last page, in whatever order the service gives its pages. A
cursor moves only behind a whole window, and every turn reads again what is younger than ``overlap``: a record that the
service shows late, or with the time of another one, is found then. What was read is recognised by keyed hashes of ids
in the cursor, and in the end by its event_id.

What the service says decides: 429 and 503 are waited for (``Retry-After``, capped), 401 makes the secret be looked up
once more, 403 names the permission that is missing. A page that comes again, or pages without end, end the turn.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta, Struct

from aitrail.clock import Clock
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.net.http import Endpoint, HttpSender, Response, check_url
from aitrail.ports import Budget, Cursors, RawBatch, RawRecord, SecretResolver, Workload

_CURSOR = "feed"
_ANSWER_BYTES = 64 << 20
_ATTEMPTS = 5
_LONGEST_WAIT = 60.0
_MOST_PAGES = 10_000
_MOST_SEEN = 50_000
_EMPTY_PAGES = 100
_ID_BYTES = 8


class FeedSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every polled feed may say."""

    start: Annotated[
        str, Meta(description="Read from this time on (ISO 8601) at the first turn; empty: one day back.")
    ] = ""
    overlap_minutes: Annotated[
        float, Meta(description="Read this much again at each turn: how late the service may show a record.", gt=0)
    ] = 15.0
    window_minutes: Annotated[
        float, Meta(description="Longest span of time that is asked for at once (matters for back-fill).", gt=0)
    ] = 1440.0
    page_size: Annotated[int, Meta(description="Records of one page.", ge=1, le=5000)] = 100
    ca_file: Annotated[str, Meta(description="PEM file of the authorities to trust instead of the default ones.")] = ""
    proxy: Annotated[str, Meta(description="HTTP proxy; empty: as the environment says; `none`: none.")] = ""
    timeout_seconds: Annotated[float, Meta(description="The longest that one request may take.", gt=0)] = 60.0


class Item(Struct, frozen=True, gc=False):
    """One record: what the service calls it, its time in epoch seconds, its bytes."""

    ident: str
    time: float
    data: bytes


class Page(Struct, frozen=True):
    """Some records; ``more`` is the token of the next page, empty at the end."""

    items: Sequence[Item]
    more: str = ""


class Window(Struct, frozen=True):
    """A span of time in epoch seconds, without its end."""

    low: float
    high: float


class PageExpired(Exception):  # noqa: N818  (not an error yet: the window is read from its start)
    """The service no longer knows the token of this page."""


class TooMuch(Exception):  # noqa: N818  (not an error yet: the window is halved)
    """The service gave only a part of the window."""


class Api(Protocol):
    """One service: how a page is asked for and read."""

    origin: str
    record_type: str

    def page(self, window: Window, token: str) -> Page:
        """Ask for one page of ``window``; the first with an empty token.

        Raises:
            AuthError, TransientError, PageExpired, TooMuch.
        """
        ...

    def probe(self) -> None:
        """Ask for as little as possible; raises what ``page`` raises."""
        ...


class _State(Struct, omit_defaults=True):
    """The cursor: everything before ``high`` was read; ``seen`` are hashes of ids with their times (seconds)."""

    high: float = 0.0
    seen: dict[bytes, int] = {}
    version: int = 1


class Caller:
    """Requests to one service: addresses checked, answers bounded, waiting as it asks."""

    def __init__(
        self,
        base_url: str,
        settings: FeedSettings,
        *,
        where: str,
        reference: str,
        secrets: SecretResolver,
        clock: Clock,
        permission: str,
    ) -> None:
        endpoint = Endpoint(
            where=where, ca_file=settings.ca_file, proxy=settings.proxy, seconds=settings.timeout_seconds
        )
        self.base = base_url.rstrip("/")
        check_url(self.base, endpoint)  # https, or this machine
        self._sender = HttpSender(endpoint, now=clock.now, cap=_ANSWER_BYTES)
        self._reference = reference
        self._secrets = secrets
        self._clock = clock
        self._permission = permission
        self._token = ""

    def get(self, path: str, headers: Mapping[str, str], *, auth: str = "Bearer {}") -> Response:
        """GET ``path``; see ``send``."""
        return self.send("GET", path, headers, b"", auth=auth)

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, *, auth: str = "Bearer {}"
    ) -> Response:
        """Send one request and give its answer, which is 2xx, 400, 404, 409, 410 or 422.

        ``auth`` is the form of the Authorization header; without braces it names the header that takes the bare secret.

        Raises:
            AuthError: the credentials are refused, or the permission is missing (named).
            TransientError: the service cannot answer now.
        """
        for attempt in range(_ATTEMPTS):
            sent = {**headers, **self._authorization(auth)}
            deadline = time.monotonic() + 2 * _LONGEST_WAIT
            try:
                answer = self._sender.request(method, self.base + path, deadline=deadline, content=body, headers=sent)
            except ConfigError as error:
                raise TransientError(str(error), hint=error.hint) from None
            if answer.status == 401 and attempt == 0:
                self._token = ""  # perhaps it was rotated
            elif answer.status in (401, 403):
                raise self._refused(answer.status)
            elif answer.status == 429 or answer.status >= 500:
                self._wait(answer, attempt)
            elif answer.status < 300 or answer.status in (400, 404, 409, 410, 422):
                return answer
            else:
                raise TransientError(f"{self.base} answers {answer.status}")
        raise TransientError(f"{self.base} has no time for us", retry_after=_LONGEST_WAIT)

    def _authorization(self, auth: str) -> dict[str, str]:
        if not self._token:
            try:
                self._token = self._secrets.resolve(self._reference)
            except ConfigError as error:
                raise AuthError(f"{self.base}: {error}", hint=error.hint) from None
        return {"Authorization": auth.format(self._token)} if "{}" in auth else {auth: self._token}

    def _refused(self, status: int) -> AuthError:
        self._token = ""
        if status == 401:
            return AuthError(
                f"{self.base} refuses the credentials", hint=f"check {self._reference}: {self._permission}"
            )
        return AuthError(f"{self.base} refuses access", hint=f"missing: {self._permission}")

    def _wait(self, answer: Response, attempt: int) -> None:
        asked = answer.retry_after(self._clock.now())
        if attempt == _ATTEMPTS - 1 or (asked is not None and asked > _LONGEST_WAIT):
            raise TransientError(f"{self.base} answers {answer.status}", retry_after=asked)
        self._clock.sleep(asked if asked is not None else min(_LONGEST_WAIT, 2.0**attempt))


class PolledFeed:
    """A source that polls one feed."""

    def __init__(self, api: Api, settings: FeedSettings, *, name: str, clock: Clock, key: bytes) -> None:
        self.name = name
        self.notes: list[str] = []
        self._api = api
        self._settings = settings
        self._clock = clock
        self._key = key[:64]
        self._overlap = settings.overlap_minutes * 60
        self._start = start_of(settings, f"sources.{name}.start")

    def survey(self, cursors: Cursors) -> Workload:
        """A feed does not say beforehand how much it holds."""
        del cursors
        return Workload()

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Yield what is new; raises only ``AuthError`` and ``TransientError``."""
        state = load_state(cursors.get(_CURSOR))
        now = self._clock.now()
        low = max(state.high - self._overlap, 0.0) if state.high else (self._start or now - 86_400)
        span = self._settings.window_minutes * 60
        began, records = self._clock.monotonic(), 0
        while low < now:
            window = Window(low, min(low + span, now))
            try:
                for batch in self._window(window, state):
                    records += len(batch.records)
                    yield batch
            except TooMuch:
                if span <= 1.0:
                    raise TransientError(f"{self._api.origin}: a second holds more records than it gives") from None
                span /= 2
                continue
            state.high = max(state.high, window.high)
            self._forget(state)
            yield self._batch([], state, settled=True)
            low = window.high
            if records >= budget.records or self._clock.monotonic() - began >= budget.seconds:
                return

    def check(self) -> list[str]:
        """Ask once; say what is missing."""
        try:
            self._api.probe()
        except (AuthError, ConfigError, TransientError) as error:
            return [f"{error} ({error.hint})" if error.hint else str(error)]
        return []

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """A feed gives no single records by their place."""
        del origin, position, end, index
        return None

    # --- one window

    def _window(self, window: Window, state: _State) -> Iterator[RawBatch]:
        """All pages of one window; a token that the service forgot starts it again, once."""
        for again in (True, False):
            try:
                yield from self._pages(window, state)
            except PageExpired:
                if not again:
                    raise TransientError(f"{self._api.origin}: pages expire before they can be read") from None
            else:
                return

    def _pages(self, window: Window, state: _State) -> Iterator[RawBatch]:
        token, tokens, empty = "", {""}, 0
        for _ in range(_MOST_PAGES):
            page = self._api.page(window, token)
            records = [self._record(item) for item in page.items if self._is_new(item, state)]
            if records:
                yield self._batch(records, state)
            if not page.more:
                return
            empty = 0 if page.items else empty + 1
            if page.more in tokens or empty > _EMPTY_PAGES:
                raise TransientError(f"{self._api.origin} gives the same pages again and again")
            token = page.more
            tokens.add(token)
        raise TransientError(f"{self._api.origin}: more than {_MOST_PAGES:,} pages; make window_minutes smaller")

    def _is_new(self, item: Item, state: _State) -> bool:
        key = self._hash(item)
        if key in state.seen:
            return False
        state.seen[key] = int(item.time)
        return True

    def _hash(self, item: Item) -> bytes:
        ident = item.ident.encode("utf-8", "surrogatepass") if item.ident else item.data
        return hashlib.blake2b(ident, digest_size=_ID_BYTES, key=self._key).digest()

    def _record(self, item: Item) -> RawRecord:
        """The record with a place that it has at every reading: its time, and a number from its id."""
        place = int.from_bytes(self._hash(item)[:4], "big") >> 1
        return RawRecord(item.data, max(0, int(item.time * 1000)), place, 0)

    def _batch(self, records: Sequence[RawRecord], state: _State, *, settled: bool = False) -> RawBatch:
        return RawBatch(
            origin=self._api.origin,
            records=records,
            cursor_key=_CURSOR,
            cursor=msgspec.msgpack.encode(state),
            bytes_read=sum(len(record.data) for record in records),
            newest=state.high,
            settled=settled,
            record_type=self._api.record_type,
        )

    def _forget(self, state: _State) -> None:
        """Keep the ids that the next turns can meet again; of too many the youngest."""
        floor = state.high - 2 * self._overlap
        kept = {key: when for key, when in state.seen.items() if when >= floor}
        if len(kept) > _MOST_SEEN:
            youngest = sorted(kept, key=kept.__getitem__)[-_MOST_SEEN:]
            kept = {key: kept[key] for key in youngest}
        state.seen = kept


def load_state(data: bytes | None) -> _State:
    """Read a cursor; one that is damaged or of another version starts anew (what is known is recognised)."""
    if not data:
        return _State()
    try:
        state = msgspec.msgpack.decode(data, type=_State)
    except (msgspec.DecodeError, ValueError):
        return _State()
    return state if state.version == 1 else _State()


def start_of(settings: FeedSettings, where: str) -> float:
    """Epoch seconds of ``start``, 0 when it is empty; raises ``ConfigError``."""
    if not settings.start:
        return 0.0
    try:
        moment = datetime.fromisoformat(settings.start)
    except ValueError:
        raise ConfigError("this is no time", where=where, hint='start = "2026-11-01T00:00:00Z"') from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def epoch(value: Any) -> float:
    """Epoch seconds of ISO text or a number; 0 when it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            return 0.0
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return 0.0


def iso(seconds: float) -> str:
    """RFC 3339 in UTC with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
