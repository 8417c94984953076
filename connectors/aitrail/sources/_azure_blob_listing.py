"""Which blobs there may be something new in: listed by hour, wider now and then, whole only the first time.

Diagnostic settings file a record by the hour in which it was received:
``resourceId=/SUBSCRIPTIONS/{id}/.../y=2026/m=11/d=23/h=09/m=00/PT1H.json`` (Microsoft Learn, "Azure resource logs").
The blob of the hour before may still grow. So every look lists the last hours, every quarter of an hour the last day,
every six hours the last days; what a look saw completely is remembered per folder (``Sweep``), and after a pause the
next look goes back to there. A folder that was never looked at is listed whole.
"""

import hashlib
import heapq
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import msgspec
from azure.core.exceptions import ResourceNotFoundError

from aitrail.sources._discover import sort_key

HOUR, DAY = 3_600.0, 86_400.0
_WIDE_EVERY, _WIDE_HOURS = 900.0, 26
_FULL_EVERY = 6 * HOUR
_BY_HOUR_UP_TO = 30
"""Hours that are listed one by one; more are listed day by day: one call brings 24 of them."""
_SKEW = 600.0
"""The service's clock may be ahead of ours: its next hour is listed this much early."""
_ROOTS_FOR = 300.0
_PAGE = 500
_YEAR = re.compile(r"y=\d{4}/\Z")
_HOUR = re.compile(r"/y=(\d{4})/m=(\d\d)/d=(\d\d)/h=(\d\d)/")


class Blob(NamedTuple):
    """One blob as a listing shows it; times are epoch seconds."""

    container: str
    name: str
    etag: str
    size: int
    modified: float
    created: float
    append: bool


class Looked(msgspec.Struct, frozen=True):
    """When one folder was last looked at completely: at its last hours, its last day, its last days."""

    near: float
    wide: float
    full: float


class Sweep(msgspec.Struct, frozen=True):
    """The cursor of all looks: key of a folder -> ``Looked``; and where reading began (epoch seconds, -1: not yet)."""

    folders: dict[str, Looked] = {}
    since: float = -1.0
    v: int = 1


_decode_sweep = msgspec.json.Decoder(Sweep).decode


def decode_sweep(data: bytes | None) -> Sweep:
    """Read a committed sweep; an empty one when there is none or it cannot be read: everything is listed then."""
    if not data:
        return Sweep()
    try:
        sweep = _decode_sweep(data)
    except (msgspec.DecodeError, ValueError):
        return Sweep()
    return sweep if sweep.v == 1 else Sweep()


class Plan(NamedTuple):
    """What one look lists: (container, prefixes in their order) per folder, and the sweep when all of it is read."""

    folders: list[tuple[str, list[str]]]
    done: Sweep


class Listing:
    """Lists blobs of one account.

    Args:
        service: ``BlobServiceClient``, asked anew each time: credentials may have been renewed.
        run: makes a call (``Calls.run``).
        containers: names, or beginnings of names that end in ``*``.
        prefix, match: which blobs.
        by_hour: whether the folders are those of diagnostic settings.
        near_hours, late_days: how far looks go back.
        since: epoch seconds, when no sweep says it: hours that ended before are left out.
        note: is told which container is not there.
    """

    def __init__(
        self,
        service: Callable[[], Any],
        run: Callable[[str, Callable[[], Any]], Any],
        *,
        containers: Sequence[str],
        prefix: str,
        match: Sequence[str],
        by_hour: bool,
        near_hours: int,
        late_days: int,
        since: float,
        note: Callable[[str], None],
    ) -> None:
        self._service = service
        self._run = run
        self._containers = tuple(containers)
        self._prefix = prefix
        self._match = tuple(pattern for pattern in match if pattern != "*")
        self._by_hour = by_hour
        self._near, self._late = near_hours * HOUR, late_days * DAY
        self._since = since
        self._note = note
        self._roots: list[tuple[str, str]] = []
        self._roots_until = -1.0

    def containers(self) -> list[str]:
        """Names of the containers that are meant."""
        names: list[str] = []
        for wanted in self._containers:
            if not wanted.endswith("*"):
                names.append(wanted)
                continue
            names += self._run("listing containers", partial(self._beginning, wanted[:-1]))
        return sorted(dict.fromkeys(names))

    def plan(self, sweep: Sweep, now: float) -> Plan:
        """Say what a look at ``now`` lists."""
        folders: list[tuple[str, list[str]]] = []
        done: dict[str, Looked] = {}
        begun = sweep.since if sweep.since >= 0 else self._since
        for container, root in self._folders(now):
            key = _key(container, root)
            looked = sweep.folders.get(key)
            if not self._by_hour or looked is None:
                folders.append((container, [root]))
                done[key] = Looked(now, now, now)
                continue
            wide, full = now - looked.wide >= _WIDE_EVERY, now - looked.full >= _FULL_EVERY
            since = min(looked.near, now) - self._near
            if wide:
                since = min(since, now - _WIDE_HOURS * HOUR)
            if full:
                since = min(since, now - self._late)
            done[key] = Looked(now, now if wide else looked.wide, now if full else looked.full)
            folders.append((container, list(prefixes(root, max(since, begun), now + _SKEW))))
        return Plan(folders, Sweep(done, begun))

    def between(self, start: float, end: float) -> Plan:
        """What a look at a stretch of the past lists; nothing is remembered of it."""
        found = self._folders(end)
        if not self._by_hour:
            return Plan([(container, [root]) for container, root in found], Sweep({}, start))
        folders = [(container, list(prefixes(root, start, end + self._late))) for container, root in found]
        return Plan(folders, Sweep({}, start))

    def blobs(self, plan: Plan) -> Iterator[Blob]:
        """Yield the blobs of a plan, all folders together hour by hour: rows of one request lie near each other."""
        streams = [self._stream(container, names, plan.done.since) for container, names in plan.folders]
        return heapq.merge(*streams, key=lambda blob: sort_key(f"{blob.container}/{blob.name}"))

    def _folders(self, now: float) -> list[tuple[str, str]]:
        """The folders that hold ``y=`` folders; looked for anew every few minutes. Plain: each container's prefix."""
        if not self._by_hour:
            return [(container, self._prefix) for container in self.containers()]
        if now >= self._roots_until or now < self._roots_until - _ROOTS_FOR:
            self._roots = [(name, root) for name in self.containers() for root in self._year_folders(name)]
            self._roots_until = now + _ROOTS_FOR
        return self._roots

    def _year_folders(self, container: str) -> Iterator[str]:
        """The folders that hold ``y=`` folders, found level by level."""
        waiting = [self._prefix]
        while waiting:
            top = waiting.pop()
            below = self._run("listing folders", partial(self._below, container, top))
            if any(_YEAR.search(name) for name in below):
                yield top
            waiting += [name for name in reversed(below) if not _YEAR.search(name)]

    def _beginning(self, start: str) -> list[str]:
        return [one.name for one in self._service().list_containers(name_starts_with=start or None)]

    def _below(self, container: str, top: str) -> list[str]:
        client = self._service().get_container_client(container)
        found = client.walk_blobs(name_starts_with=top or None, delimiter="/", results_per_page=_PAGE)
        try:
            return [one.name for one in found if one.name.endswith("/")]
        except ResourceNotFoundError:
            self._note(f"container {container}: not there (yet); not read")
            return []

    def _stream(self, container: str, names: Sequence[str], since: float) -> Iterator[Blob]:
        for prefix in names:
            token: str | None = ""
            while token is not None:
                page, token = self._run("listing blobs", partial(self._page, container, prefix, token))
                yield from (blob for blob in page if self._wanted(blob, since))

    def _page(self, container: str, prefix: str, token: str) -> tuple[list[Blob], str | None]:
        client = self._service().get_container_client(container)
        pages = client.list_blobs(name_starts_with=prefix or None, results_per_page=_PAGE).by_page(token or None)
        try:
            found = [_blob(container, one) for one in next(pages, ())]
        except ResourceNotFoundError:
            self._note(f"container {container}: not there (yet); not read")
            return [], None
        return found, pages.continuation_token or None

    def _wanted(self, blob: Blob, since: float) -> bool:
        if blob.size == 0:
            return False
        if self._match and not any(fnmatchcase(blob.name, pattern) for pattern in self._match):
            return False
        return blob.modified >= since if not self._by_hour else hour_end(blob.name) > since


def _blob(container: str, one: Any) -> Blob:
    created = one.creation_time
    return Blob(
        container,
        one.name,
        one.etag or "",
        one.size or 0,
        one.last_modified.timestamp(),
        created.timestamp() if created is not None else 0.0,
        "append" in str(one.blob_type or "").lower(),
    )


def _key(container: str, root: str) -> str:
    return hashlib.blake2b(f"{container}/{root}".encode(), digest_size=9).hexdigest()


def hour_end(name: str) -> float:
    """When the hour of a diagnostic blob ends, epoch seconds; infinite when its name names none."""
    match = _HOUR.search(f"/{name}")
    if match is None:
        return float("inf")
    try:
        return datetime(*map(int, match.groups()), tzinfo=UTC).timestamp() + HOUR  # type: ignore[arg-type,misc]
    except ValueError:
        return float("inf")


def prefixes(root: str, since: float, until: float) -> Iterator[str]:
    """Yield the folders from the hour of ``since`` to that of ``until``: hours, or days when there are many."""
    first = datetime.fromtimestamp(max(since, 0.0), UTC).replace(minute=0, second=0, microsecond=0)
    last = datetime.fromtimestamp(until, UTC)
    if last - first <= timedelta(hours=_BY_HOUR_UP_TO):
        while first <= last:
            yield f"{root}y={first:%Y}/m={first:%m}/d={first:%d}/h={first:%H}/"
            first += timedelta(hours=1)
        return
    first = first.replace(hour=0)
    while first <= last:
        yield f"{root}y={first:%Y}/m={first:%m}/d={first:%d}/"
        first += timedelta(days=1)
