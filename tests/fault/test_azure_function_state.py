"""What a function app remembers, in blobs, against Azurite over TLS: conflicts, throttling, expired tokens."""

import itertools
import os
import threading
import time
import warnings

import pytest

from aitrail.errors import AuthError, ConfigError, CorruptInputError, StoreError, TransientError
from aitrail.ports import EncodedEvent
from aitrail.runtime.scheduled import azure_state
from aitrail.runtime.scheduled.azure_blobs import Blobs, Conflict
from aitrail.runtime.scheduled.azure_state import BlobCursors, BlobLeases, DeadLetters, Seen, WaitingEvents
from aitrail.spool.records import DeadLetter
from aitrail.testing.azure_flow import StillClock

azure_storage = pytest.importorskip("aitrail.testing.azure_storage", reason="needs the extra azure")
from aitrail.testing.azure_state import Identity, Scripted, secure_azurite  # noqa: E402

_names = itertools.count()


@pytest.fixture
def server():
    why = azure_storage.missing()
    if why:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return secure_azurite()


@pytest.fixture
def clock():
    return StillClock(time.time())


@pytest.fixture
def blobs(server, clock):
    made = server.blobs(server.container(f"state-{os.getpid()}-{next(_names)}"), clock)
    yield made
    made.close()


def event(number):
    return EncodedEvent(f"{number:032x}", "2026-11-23T10:00:00.000Z", b'{"event_id":"%032x"}' % number)


def scripted(blobs, *script):
    blobs._sender = Scripted(blobs._sender, script)
    return blobs._sender


# -- blobs


def test_a_write_is_taken_only_over_the_version_that_was_read(blobs):
    first = blobs.write("a b/ü", b"1")
    with pytest.raises(Conflict):
        blobs.write("a b/ü", b"2")
    second = blobs.write("a b/ü", b"2", etag=first)
    with pytest.raises(Conflict):
        blobs.write("a b/ü", b"3", etag=first)
    assert blobs.read("a b/ü") == (b"2", second)
    assert blobs.read("none") is None
    assert [(one.name, one.size) for one in blobs.listed("a ")] == [("a b/ü", 1)]
    blobs.remove("a b/ü")
    blobs.remove("a b/ü")
    assert list(blobs.listed("")) == []


def test_appending_makes_the_blob_and_tails_are_read(blobs):
    blobs.append("log", b"one")
    blobs.append("log", b"two")
    assert blobs.read("log")[0] == b"onetwo"
    assert blobs.read("log", 3)[0] == b"two"
    assert blobs.read("log", 6) is None


def test_listings_of_several_pages(blobs, monkeypatch):
    from aitrail.runtime.scheduled import azure_blobs

    monkeypatch.setattr(azure_blobs, "_PAGE", 3)
    for number in range(8):
        blobs.put(f"n/{number}", b"x")
    assert [one.name for one in blobs.listed("n/")] == [f"n/{number}" for number in range(8)]
    assert len(list(blobs.listed("n/", 5))) == 5


@pytest.mark.parametrize("status", [429, 500, 503])
def test_throttling_is_waited_for_as_asked(blobs, clock, status):
    sender = scripted(blobs, (status, "ServerBusy"), (status, "ServerBusy"))
    blobs.write("x", b"1")
    assert blobs.read("x")[0] == b"1"
    assert sender.sent.count("PUT") == 3
    assert sum(clock.slept) >= 2.0, "Retry-After says one second each"


def test_a_service_that_stays_away_is_an_error_that_says_so(blobs, clock):
    scripted(blobs, *["down"] * 4)
    with pytest.raises(TransientError, match="lost"):
        blobs.write("x", b"1")
    scripted(blobs, *[(503, "ServerBusy")] * 4)
    with pytest.raises(TransientError, match="ServerBusy"):
        blobs.read("x")


def test_our_own_write_whose_answer_was_lost_is_no_conflict(blobs):
    scripted(blobs, "lost")
    etag = blobs.write("x", b"1")
    scripted(blobs, "lost")
    etag = blobs.write("x", b"2", etag=etag)
    assert blobs.read("x") == (b"2", etag)


def test_a_lost_answer_and_somebody_elses_write_is_a_conflict(blobs):
    etag = blobs.write("x", b"1")
    blobs.write("x", b"theirs", etag=etag)
    scripted(blobs, "down")
    with pytest.raises(Conflict):
        blobs.write("x", b"ours", etag=etag)
    assert blobs.read("x")[0] == b"theirs"


def test_an_expired_token_is_asked_for_anew_once(server, clock):
    url = server.container(f"token-{os.getpid()}-{next(_names)}")
    old = azure_storage.token_of(time.time(), -60.0)
    identity = Identity([old])
    blobs = server.blobs(url, clock, identity)
    assert blobs.write("x", b"1")
    assert identity.asked == ["https://storage.azure.com/.default"] * 2
    blobs.close()
    identity = Identity([old, old])
    blobs = server.blobs(url, clock, identity)
    with pytest.raises(AuthError, match="HTTP 40") as caught:
        blobs.read("x")
    assert "Storage Blob Data Contributor" in caught.value.hint
    assert old not in str(caught.value)
    blobs.close()


def test_no_identity_and_no_container_name_their_cause(server, clock):
    from aitrail.managed_identity import CredentialUnavailableError

    url = server.container(f"cause-{os.getpid()}-{next(_names)}")
    blobs = server.blobs(url, clock, Identity([CredentialUnavailableError("none")]))
    with pytest.raises(AuthError, match="no token"):
        blobs.read("x")
    blobs.close()
    blobs = server.blobs(f"{server.url}/absent-container", clock)
    for call in (lambda: blobs.read("x"), lambda: blobs.write("x", b""), lambda: blobs.append("x", b"1")):
        with pytest.raises(ConfigError, match="ContainerNotFound"):
            call()
    blobs.close()


def test_keys_and_plain_http_have_no_way_in(clock):
    with pytest.raises(ConfigError, match="in the clear"):
        Blobs("http://account.blob.example.com/c", Identity(), clock)


# -- cursors, leases, seen, dead letters, waiting


def test_cursors_are_committed_as_a_whole_and_only_by_who_read_them_last(blobs, clock):
    first = BlobCursors(blobs, "hub", clock)
    assert first.get("a") is None
    first.commit({"a": b"1", "b": b"\x00\xff"})
    second = BlobCursors(blobs, "hub", clock)
    assert dict(second.items()) == {"a": b"1", "b": b"\x00\xff"}
    second.commit({"a": b"2"})
    with pytest.raises(Conflict):
        first.commit({"a": b"old"})
    assert BlobCursors(blobs, "hub", clock).get("a") == b"2"
    second.commit({"c": b"3"})
    assert dict(BlobCursors(blobs, "hub", clock).items()) == {"a": b"2", "b": b"\x00\xff", "c": b"3"}
    assert BlobCursors(blobs, "other", clock).get("a") is None


def test_two_first_commits_do_not_overwrite_each_other(blobs, clock):
    one, two = BlobCursors(blobs, "s", clock), BlobCursors(blobs, "s", clock)
    one.commit({"a": b"1"})
    with pytest.raises(Conflict):
        two.commit({"a": b"2"})


def test_cursors_of_hours_that_nobody_lists_any_more_go(blobs, clock):
    cursors = BlobCursors(blobs, "s", clock)
    day = "logs/resourceId=/X/y={}/m={}/d={}/h=00/m=00/PT1H.json"
    old, now = day.format("2020", "01", "31"), time.strftime(day.format("%Y", "%m", "%d"), time.gmtime(clock.now()))
    cursors.commit({old: b"1", now: b"2", "sweep": b"3"})
    assert dict(BlobCursors(blobs, "s", clock).items()) == {now: b"2", "sweep": b"3"}


@pytest.mark.parametrize("body", [b"", b"rubbish", b"\x1f\x8b\x08"])
def test_damaged_cursors_stop_the_source(blobs, clock, body):
    blobs.put("cursors/s", body)
    with pytest.raises(StoreError, match="damaged"):
        BlobCursors(blobs, "s", clock)


def test_one_of_many_gets_the_lease_and_it_moves_on_when_it_expires(server, blobs, clock):
    owners = [BlobLeases(blobs, clock, f"run-{number}") for number in range(8)]
    taken = []

    def take(one):
        taken.append(one.acquire("blobs", 60))

    threads = [threading.Thread(target=take, args=(one,)) for one in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [lease for lease in taken if lease is not None]
    assert len(held) == 1
    (first,) = held
    other = next(one for one in owners if one.owner != first.owner)
    mine = next(one for one in owners if one.owner == first.owner)
    assert other.acquire("blobs", 60) is None
    assert mine.renew([first], 60) == mine.renew([first], 60) != []
    clock.time += 61
    second = other.acquire("blobs", 60)
    assert second is not None
    assert second.token == first.token + 1
    assert mine.renew([first], 60) == []
    mine.release([first])
    assert mine.acquire("blobs", 60) is None, "a lease that is lost cannot be given back"
    other.release([second])
    assert mine.acquire("blobs", 60) is not None


def test_seen_is_shared_remembered_and_forgotten_by_the_hour(blobs, clock):
    ids = [f"{number:032x}" for number in range(1_000)]
    one, two = Seen(blobs, "s", clock), Seen(blobs, "s", clock)
    one.refresh()
    assert one.known(ids[:3]) == [False] * 3
    one.add(ids[:500])
    assert one.known(ids) == [True] * 500 + [False] * 500
    two.refresh()
    two.add(ids[500:])
    one.refresh()
    assert one.known(ids) == [True] * 1_000
    assert one.known(["not hex: another kind of id"]) == [False]
    clock.time += 3_600 * (azure_state.SEEN_HOURS - 1)
    three = Seen(blobs, "s", clock)
    three.refresh()
    assert all(three.known(ids))
    clock.time += 3_600 * 2
    three.refresh()
    assert not any(three.known(ids))
    assert list(blobs.listed("seen/")) == []


def test_seen_reads_only_the_tail_that_is_new(blobs, clock):
    one = Seen(blobs, "s", clock)
    other = Seen(blobs, "s", clock)
    other.add([f"{number:032x}" for number in range(100)])
    one.refresh()
    sender = scripted(blobs)
    one.refresh()
    assert sender.sent == ["GET"], "the listing says that nothing came"
    other.add([f"{200:032x}"])
    one.refresh()
    assert one.known([f"{200:032x}", f"{99:032x}"]) == [True, True]


def test_an_append_that_was_torn_is_no_event(blobs, clock):
    one = Seen(blobs, "s", clock)
    one.add([f"{1:032x}"])
    (blob,) = blobs.listed("seen/")
    blobs.append(blob.name, b"torn")
    again = Seen(blobs, "s", clock)
    again.refresh()
    assert again.known([f"{1:032x}", f"{2:032x}"]) == [True, False]


def letter(number, **more):
    values = {"source": "hub", "origin": "o", "position": number, "end": 0, "index": 0, "code": "not_json"}
    return DeadLetter(
        id=f"{number:024x}", field="", record_type="", stage="normalize", first_seen=1.8e9, **values, **more
    )


def test_dead_letters_are_kept_once_however_often_they_are_written(blobs):
    store = DeadLetters(blobs)
    letters = [letter(number) for number in range(3)] + [letter(9, raw=b"\x00\xff"), letter(10, event_id="e")]
    store.keep(letters)
    store.keep(letters)
    store.keep([])
    assert sorted(one.id for one in store.all()) == sorted(one.id for one in letters)
    assert next(one for one in store.all() if one.raw).raw == b"\x00\xff"
    assert len(list(blobs.listed("dead/hub/20270115/"))) == 1


def test_waiting_events_come_back_as_they_were_until_they_are_settled(blobs):
    store = WaitingEvents(blobs)
    events = [event(number) for number in range(5)]
    store.keep("sentinel", events)
    store.keep("sentinel", events)
    store.keep("splunk", events[:1])
    store.keep("splunk", [])
    (blob,) = store.listed("sentinel")
    assert store.read(blob) == events
    store.settle(blob, events[3:])
    (rest,) = store.listed("sentinel")
    assert store.read(rest) == events[3:]
    assert store.read(blob) == [], "it is gone"
    store.settle(rest, events[3:])  # nothing could be sent: it stays
    assert [store.read(one) for one in store.listed("sentinel")] == [events[3:]]
    store.settle(rest, [])
    assert [one.name.split("/")[1] for one in store.listed()] == ["splunk"]
    blobs.put("waiting/splunk/bad", b"rubbish")
    with pytest.raises(CorruptInputError):
        store.read(next(one for one in store.listed("splunk") if one.name.endswith("bad")))


def test_nothing_warns(server):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        server.blobs(f"{server.url}/x").close()
