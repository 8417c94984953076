"""What was made faster gives what it gave before: batches, hashes, times and merged segments."""

import hashlib
import hmac
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from aitrail.clock import SystemClock
from aitrail.enrich import Directory
from aitrail.event import AccessEvent, encode
from aitrail.normalize import litellm
from aitrail.normalize.common import epoch_to_time
from aitrail.normalize.litellm_values import moment
from aitrail.normalize.outcome import Content, Context, Normalized
from aitrail.ports import EncodedEvent
from aitrail.privacy.keys import KeyRing, keyed_hash
from aitrail.privacy.treat import Privacy
from aitrail.runtime.judging import default_classifier
from aitrail.secrets import Secrets
from aitrail.store import catalog, maintenance
from aitrail.store.database import Database
from aitrail.store.segments import SegmentWriter
from aitrail.transform import Transform, Unfinished

FIXTURES = Path(__file__).parent.parent / "fixtures" / "litellm"
DAY = "2026-11-20"


@pytest.mark.parametrize("length", [1, 32, 64, 65, 200])
@pytest.mark.parametrize("text", ["", "hello", "Grüße \U0001f600", "\udce9 alone", "x" * 5000])
def test_keyed_hash_is_hmac(length: int, text: str) -> None:
    key = bytes(range(1, 1 + length))
    expected = hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    assert keyed_hash("k1", key, text) == f"hmac-sha256:k1:{expected}"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20 09:14:05.123456",
        "2026-11-20T09:14:05.000001",
        "2026-11-20 09:14:05",
        " 2026-11-20 09:14:05.5 ",
        "1969-12-31 23:59:59.999999",
        "0001-01-01 00:00:00.000000",
        "9999-12-31 23:59:59.999999",
    ],
)
def test_a_time_without_zone_is_read_as_utc(text: str) -> None:
    found = moment(text)
    assert found.assumed
    assert found.epoch == datetime.fromisoformat(text.strip()).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", ["2026-11-20 09:14:05.12345x", "2026-11-20 24:14:05.123456", "", "soon"])
def test_what_is_no_time_has_none(text: str) -> None:
    assert moment(text).epoch is None


def test_a_time_with_zone_keeps_it() -> None:
    found = moment("2026-11-20 09:14:05.123+01")
    assert not found.assumed
    assert found.epoch == 1795162445.123


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1795166045.123456, "2026-11-20T09:14:05.123Z"),
        (1795166045.9996, "2026-11-20T09:14:06.000Z"),
        (1795132799.9999, "2026-11-20T00:00:00.000Z"),
        (946684800.0, "2000-01-01T00:00:00.000Z"),
        (946684799.0, ""),
        (float("nan"), ""),
    ],
)
def test_epoch_to_time(seconds: float, expected: str) -> None:
    assert epoch_to_time(seconds) == expected


def test_events_finished_together_are_what_each_is_alone(tmp_path: Path) -> None:
    transform = Transform(
        default_classifier(), Privacy(KeyRing(tmp_path / "keys", {}, Secrets())), Directory(), lambda _: "redacted"
    )

    def events() -> list[tuple[AccessEvent, Content | None]]:
        found = [
            outcome
            for path in sorted(FIXTURES.glob("*.json"))
            for outcome in litellm.normalize(path.read_bytes(), Context(tenant_id="acme"))
        ]
        return [(one.event, one.content) for one in found if isinstance(one, Normalized)]

    now = "2026-11-20T10:00:00.000Z"
    alone = [transform.finish(event, content, f"f#{n}", now) for n, (event, content) in enumerate(events())]
    together = transform.finish_all(
        [Unfinished(event, content, f"f#{n}") for n, (event, content) in enumerate(events())], now
    )
    assert len(alone) > 20
    assert any(b"prompt_text" in one.body for one in alone)
    assert together == alone


def segment(writer: SegmentWriter, first: int, count: int) -> catalog.Segment:
    events = [
        AccessEvent(
            event_id=hashlib.blake2b(b"%d" % number, digest_size=16).hexdigest(),
            timestamp=f"{DAY}T00:00:00.000Z",
            tenant_id="acme",
            source="test",
            user_id=f"user-{number}",
        )
        for number in range(first, first + count)
    ]
    return writer.write(
        catalog.EVENTS, DAY, [EncodedEvent(event.event_id, event.timestamp, encode(event)) for event in events]
    )


def stored(directory: Path, sizes: list[tuple[int, int]]) -> None:
    with Database.open(directory, SystemClock()) as database:
        writer = SegmentWriter(database.segments, SystemClock())
        segments = [segment(writer, first, count) for first, count in sizes]
        writer.close()
        with database.transaction() as db:
            catalog.add(db, segments, 0.0)


def test_a_small_segment_beside_a_large_one_waits_for_more(tmp_path: Path) -> None:
    stored(tmp_path, [(0, 3000), (3000, 10)])
    assert maintenance.compact(tmp_path, lazily=True) == maintenance.Compacted()
    stored(tmp_path, [(4000 + 10 * number, 2) for number in range(22)])
    done = maintenance.compact(tmp_path, lazily=True)
    assert (done.segments_before, done.segments_after) == (24, 1)
    assert maintenance.stats(tmp_path).events == 3054


def test_segments_of_like_size_are_merged_at_once(tmp_path: Path) -> None:
    stored(tmp_path, [(0, 50), (50, 40)])
    done = maintenance.compact(tmp_path, lazily=True)
    assert (done.segments_before, done.segments_after) == (2, 1)


def test_merging_takes_more_memory_where_it_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(tmp_path, [(0, 3000), (2000, 3000)])
    monkeypatch.setattr(maintenance, "_MEMORY_LIMITS", ("1MB", "256MB"))
    tried: list[str] = []
    once = maintenance._rewrite_within

    def within(*arguments: msgspec.UnsetType) -> tuple[int, int]:
        tried.append(str(arguments[-1]))
        return once(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(maintenance, "_rewrite_within", within)
    done = maintenance.compact(tmp_path)
    assert tried == ["1MB", "256MB"]
    assert (done.segments_after, done.duplicates) == (1, 1000)
    assert maintenance.stats(tmp_path).events == 5000
