"""A lake as a destination: OCSF 1.8 as Parquet, partitioned for Athena, Trino, Spark and DuckDB.

Accesses are API Activity (6003), findings Detection Finding (2004); one destination object writes one of them.

"Delivered" means that the file with the event is there, whole and durable (S3: the PutObject was answered; a directory:
file and directory entry are synced). A file's name is a hash of the event ids in it: the same batch sent again finds
its file and answers ``duplicate``. Other batches of the same events make another file; compaction keeps each event once
(by ``metadata.uid``), and until then readers do.

Partitions: ``class_uid=6003/region=R/account=A/day=YYYY-MM-DD/`` or, for an Amazon Security Lake custom source,
``region=R/accountId=A/eventDay=YYYYMMDD/``. Regions and accounts that do not look like one go into ``other``, absent
ones into Hive's name for null; the event itself keeps what it said.
"""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import msgspec

from aitrail.clock import Clock, SystemClock
from aitrail.destinations import _batching
from aitrail.destinations._batching import OVERSIZE_CODE
from aitrail.destinations._lake_files import FileMaker, Row, Unstorable, merge
from aitrail.destinations._lake_settings import LakeSettings, Layout
from aitrail.destinations._lake_stores import LocalStore, ObjectStore, S3Store, StoredFile, s3_client
from aitrail.destinations._raw_fields import UNENCODABLE_CODE
from aitrail.errors import AitrailError, ConfigError
from aitrail.event import decode
from aitrail.ports import DELIVERED, DUPLICATE, Ack, EncodedEvent, Limits, Verdict
from aitrail.schema.ocsf import CLASS_UID
from aitrail.schema.ocsf_finding import FINDING_CLASS_UID
from aitrail.streams import Finding
from aitrail.streams import decoded as decode_record

NULL = "__HIVE_DEFAULT_PARTITION__"
OTHER = "other"
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,39}", re.ASCII)
_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", re.ASCII)
_DAY = re.compile(r"(?!0000)\d{4}-\d{2}-\d{2}", re.ASCII)
_TOO_LARGE = Verdict("rejected", code=OVERSIZE_CODE)
_NOT_AN_EVENT = Verdict("rejected", code=UNENCODABLE_CODE)
_UNSTORABLE = Verdict("rejected", code="unstorable")

# Place in the batch and the event there.
_Items = dict[int, Row]
# The daemon's first compaction comes soon after its start, however rare the others are.
_FIRST_COMPACTION = 600.0


@lru_cache(maxsize=4_096)
def _segment(value: str, form: re.Pattern[str]) -> str:
    """A value as one step of a path: itself when it has the form, else ``other``."""
    return (value if form.fullmatch(value) else OTHER) if value else NULL


def _hive(class_uid: int, region: str, account: str, day: str) -> str:
    return f"class_uid={class_uid}/region={region}/account={account}/day={day}"


def _security_lake(class_uid: int, region: str, account: str, day: str) -> str:
    del class_uid  # one custom source has one class
    return f"region={region}/accountId={account}/eventDay={day.replace('-', '')}"


_LAYOUTS: Mapping[Layout, Callable[[int, str, str, str], str]] = {"hive": _hive, "security_lake": _security_lake}


class Compaction(msgspec.Struct, frozen=True):
    """What one compaction did: files before and after, rows read, and repeats that it dropped."""

    files_before: int = 0
    files_after: int = 0
    rows: int = 0
    repeats: int = 0


class LakeDestination:
    """Writes events as Parquet files. Thread-safe.

    Args:
        settings: where and how.
        store: where files lie; made from the settings unless given.
        name: the destination's name in the outbox.
        clock: tells how old files are.

    Raises:
        ConfigError: neither a directory nor a bucket is named, or both are.
    """

    dedupe: Literal["by_id", "none"] = "none"

    def __init__(
        self,
        settings: LakeSettings,
        store: ObjectStore | None = None,
        *,
        name: str = "lake",
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._clock = clock or SystemClock()
        self._store = store or _store(settings, f"destinations.{name}")
        self._layout = _LAYOUTS[settings.layout]
        self._maker = FileMaker()
        self._next_compaction = self._clock.monotonic() + min(_FIRST_COMPACTION, settings.compact_every_seconds)
        self.limits = Limits(
            max_events=settings.batch_events,
            max_batch_bytes=settings.batch_bytes,
            max_event_bytes=min(settings.event_bytes, settings.batch_bytes),
        )

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Write one file per partition of ``batch``; each request is bounded, so ``deadline`` is not needed.

        Raises:
            ConfigError, AuthError: the place, or a permission there, is wrong; the message names it.
            TransientError: nothing was written.
        """
        del deadline
        verdicts: list[Verdict | None] = [None] * len(batch)
        partitions: dict[str, _Items] = {}
        for place, event in enumerate(batch):
            decoded = self._decoded(event)
            if isinstance(decoded, Verdict):
                verdicts[place] = decoded
            else:
                partitions.setdefault(self._partition(decoded), {})[place] = decoded
        try:
            with tempfile.TemporaryDirectory(prefix="aitrail-lake-") as directory:
                for partition, items in partitions.items():
                    self._write(partition, items, Path(directory), verdicts)
        except AitrailError:
            if all(verdict is None for verdict in verdicts):
                raise
        return Ack([verdict or Verdict("retry", code="unwritten") for verdict in verdicts])

    def confirm(self, token: str) -> Verdict:
        """Nothing is ever pending here."""
        del token
        return Verdict("retry", code="unknown_token")

    def close(self) -> None:
        """Give back memory."""
        self._maker.close()

    def check(self) -> list[str]:
        """Say what is wrong with the place."""
        return self._store.check()

    def compact(self) -> Compaction:
        """Merge the small files of every partition; each event is there once afterwards.

        Only files older than ``compact_after_seconds`` are touched. The merged file is published first and the others
        are removed behind it: for that moment readers may see events twice, and none is ever missing. A crash in
        between is mended by the next compaction.

        Raises:
            TransientError, AuthError, ConfigError: as ``send``; what was merged so far stays merged.
        """
        oldest = self._clock.now() - self._settings.compact_after_seconds
        folders: dict[str, list[StoredFile]] = {}
        for file in self._store.listing(""):
            if file.modified <= oldest and file.size < self._settings.compact_bytes:
                folders.setdefault(file.key.rpartition("/")[0], []).append(file)
        done = Compaction()
        for folder, files in sorted(folders.items()):
            sizes = [file.size for file in files]
            for start, end in _batching.pack(sizes, 1_000, self._settings.compact_bytes):
                if end - start > 1:
                    done = _add(done, self._merge(folder, files[start:end]))
        return done

    def upkeep(self) -> None:
        """Compact when it is time to; called between two sends. Raises as ``compact`` does."""
        if self._settings.stream == "finding" and not self._settings.findings:
            return  # they lie beside the accesses, whose destination compacts both
        every = self._settings.compact_every_seconds
        now = self._clock.monotonic()
        if every and now >= self._next_compaction:
            self._next_compaction = now + every
            self.compact()

    # --- writing

    def _decoded(self, event: EncodedEvent) -> Row | Verdict:
        """Read the event, cut short where the policy allows it, or say why it cannot be stored."""
        if len(event.body) > self._settings.event_bytes:
            shorter = _batching.fit(event, self._settings.event_bytes, self._settings.oversize)
            if shorter is None:
                return _TOO_LARGE
            event = shorter
        try:
            decoded = self._read(event)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return _NOT_AN_EVENT
        if decoded is None or decoded.event_id != event.event_id:
            return _NOT_AN_EVENT
        return decoded if _DAY.fullmatch(decoded.timestamp[:10]) else Verdict("rejected", code="timestamp_invalid")

    def _read(self, event: EncodedEvent) -> Row | None:
        """Read an event of the kind that is written here; None when it is of another."""
        if self._settings.stream == "access":
            return decode(event.body)
        record = decode_record(event)
        return record if isinstance(record, Finding) else None

    def _partition(self, event: Row) -> str:
        day = event.timestamp[:10]
        if isinstance(event, Finding):
            return self._layout(FINDING_CLASS_UID, NULL, NULL, day)
        region, account = _segment(event.cloud_region, _REGION), _segment(event.cloud_account, _ACCOUNT)
        return self._layout(CLASS_UID, region, account, day)

    def _write(self, partition: str, items: _Items, directory: Path, verdicts: list[Verdict | None]) -> None:
        """Write the events of one partition; halved around those that cannot be stored."""
        # The same event twice in a batch is one row.
        distinct: dict[str, int] = {}
        for place, event in items.items():
            if distinct.setdefault(event.event_id, place) != place:
                verdicts[place] = DUPLICATE
        places = list(distinct.values())
        name = blake2b("".join(sorted(distinct)).encode(), digest_size=16).hexdigest()
        key = f"{partition}/{name}.parquet"
        verdict = DUPLICATE
        if not self._store.exists(key):
            target = directory / f"{name}.parquet"
            try:
                self._maker.write([items[place] for place in places], target)
            except Unstorable:
                self._write_around(partition, {place: items[place] for place in places}, directory, verdicts)
                return
            verdict = DELIVERED if self._store.put(key, target) else DUPLICATE
            target.unlink()
        for place in places:
            verdicts[place] = verdict

    def _write_around(self, partition: str, items: _Items, directory: Path, verdicts: list[Verdict | None]) -> None:
        places = list(items)
        if len(places) == 1:
            verdicts[places[0]] = _UNSTORABLE
            return
        first, second = _batching.halves(0, len(places))
        for start, end in (first, second):
            self._write(partition, {place: items[place] for place in places[start:end]}, directory, verdicts)

    def _merge(self, folder: str, files: Sequence[StoredFile]) -> Compaction:
        name = blake2b("".join(sorted(file.key for file in files)).encode(), digest_size=16).hexdigest()
        with tempfile.TemporaryDirectory(prefix="aitrail-lake-") as directory:
            local = []
            for number, file in enumerate(files):
                copy = Path(directory) / f"{number}.parquet"
                self._store.fetch(file.key, copy)
                local.append(copy)
            target = Path(directory) / "merged.parquet"
            read, written = merge(local, target)
            self._store.put(f"{folder}/{name}.parquet", target)
        for file in files:
            self._store.delete(file.key)
        return Compaction(len(files), 1, read, read - written)


def _add(one: Compaction, other: Compaction) -> Compaction:
    return Compaction(
        one.files_before + other.files_before,
        one.files_after + other.files_after,
        one.rows + other.rows,
        one.repeats + other.repeats,
    )


def _store(settings: LakeSettings, where: str) -> ObjectStore:
    if bool(settings.directory) == bool(settings.bucket):
        raise ConfigError(
            "a lake is a directory or a bucket", where=where, hint='directory = "lake", or bucket = "..."'
        )
    findings = settings.stream == "finding"
    if findings and settings.layout == "security_lake" and not settings.findings:
        raise ConfigError(
            "a custom source of Security Lake has one class, so findings need one of their own",
            where=f"{where}.findings",
            hint='set findings to the prefix of that source, or streams = ["access"]',
        )
    own = settings.findings if findings else ""
    if settings.directory:
        return LocalStore(Path(own or settings.directory))
    client = s3_client(settings.region, settings.endpoint, settings.request_seconds)
    return S3Store(client, settings.bucket, own or settings.prefix, kms_key=settings.kms_key, where=where)
