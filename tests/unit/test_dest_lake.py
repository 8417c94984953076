"""The lake destination beyond the conformance suite: columns, partitions, compaction, S3."""

import importlib
import os
import time
from pathlib import Path

import duckdb
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitrail.destinations import _lake_stores
from aitrail.destinations._lake_schema import _merge, json_columns, shape
from aitrail.destinations._lake_settings import LakeSettings
from aitrail.destinations._lake_stores import LocalStore, S3Store
from aitrail.destinations.lake import LakeDestination
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.event import AccessEvent, encode
from aitrail.ports import EncodedEvent
from aitrail.schema.catalog import example_event, fields
from aitrail.schema.ocsf import to_ocsf
from aitrail.testing.events import hostile_events, make_event, make_events, oversize_event
from aitrail.testing.lake_peer import LakePeer, flat


@pytest.fixture
def peer():
    running = LakePeer()
    yield running
    running.close()


def connect(peer, store=None, **changes):
    return LakeDestination(LakeSettings(**{"directory": peer.address["directory"], **changes}), store)


def send(lake, events):
    return [(one.status, one.code) for one in lake.send(events, time.monotonic() + 30).verdicts]


# --- columns

VALUES = {
    "string": st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12),
    "text": st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30),
    "ip": st.sampled_from(["", "203.0.113.9", "2001:db8::1", "f" * 50]),
    "time": st.just("2026-11-23T09:14:05.120Z"),
    "integer": st.none() | st.integers(0, 2**40),
    "number": st.none() | st.floats(0, 1e6),
    "boolean": st.none() | st.booleans(),
    "list": st.lists(st.sampled_from(["aml.t0051.000@5.6.0", "llm01:2025", "x"]), max_size=2).map(tuple),
}
any_event = st.fixed_dictionaries(
    {
        field.name: st.sampled_from(field.enum) if field.enum else VALUES[field.kind]
        for field in fields()
        if field.name not in ("event_id", "injection_score", "injection_tier")
    }
).map(lambda values: AccessEvent(event_id="e" * 32, **values))


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(any_event)
def test_every_value_of_ocsf_has_a_column_of_its_type(event):
    known = shape()
    assert _merge(known, to_ocsf(event)) == known


def test_columns_are_the_same_whatever_the_events(peer):
    lake = connect(peer)
    sparse = AccessEvent(event_id="a" * 32, timestamp="2026-11-23T09:00:00.000Z", tenant_id="acme", source="x")
    for event in (sparse, example_event()):
        send(lake, [EncodedEvent(event.event_id, event.timestamp, encode(event))])
    lake.close()
    with duckdb.connect() as engine:
        found = [engine.execute("DESCRIBE FROM read_parquet(?)", [str(path)]).fetchall() for path in peer.files()]
    assert len(found) == 2
    assert [row[:2] for row in found[0] if row[0] in shape()] == [row[:2] for row in found[1] if row[0] in shape()]
    assert "STRUCT" in json_columns()


def test_nothing_of_an_event_is_lost(peer):
    lake = connect(peer)
    event = example_event()
    send(lake, [EncodedEvent(event.event_id, event.timestamp, encode(event)), *hostile_events()])
    lake.close()
    whole = {row["metadata"]["uid"]: row for row in peer.rows()}[event.event_id]
    plain = msgspec.json.decode(encode(event))
    seen = flat(whole)
    assert {name: plain[name] for name in seen} == seen
    # What has no plain place is in a list: role, department, resource, atlas.
    assert set(plain) - set(seen) <= {"role", "department", "resource_id", "resource_type"}
    assert whole["resources"][0]["uid"] == event.resource_id
    stored = {row["metadata"]["uid"]: row["unmapped"]["prompt_text"] for row in peer.rows()}
    for hostile in hostile_events():
        assert stored[hostile.event_id] == msgspec.json.decode(hostile.body)["prompt_text"]


# --- partitions and names


@pytest.mark.parametrize(
    ("region", "account", "folder"),
    [
        ("eu-west-1", "111122223333", "class_uid=6003/region=eu-west-1/account=111122223333/day=2026-11-23"),
        ("", "", "class_uid=6003/region=__HIVE_DEFAULT_PARTITION__/account=__HIVE_DEFAULT_PARTITION__/day=2026-11-23"),
        ("../../etc", "a/b", "class_uid=6003/region=other/account=other/day=2026-11-23"),
        ("eu\nwest", "..", "class_uid=6003/region=other/account=other/day=2026-11-23"),
        ("r" * 300, "x=y", "class_uid=6003/region=other/account=other/day=2026-11-23"),
    ],
)
def test_no_value_of_an_event_becomes_a_path(peer, region, account, folder):
    lake = connect(peer)
    event = make_event(1, cloud_region=region, cloud_account=account)
    assert send(lake, [event]) == [("delivered", "")]
    lake.close()
    (path,) = peer.files()
    assert path.parent == peer.root / folder
    assert flat(peer.rows()[0]).get("cloud_region", "") == region


def test_security_lake_layout(peer):
    lake = connect(peer, layout="security_lake")
    send(lake, [make_event(1, cloud_region="eu-west-1", cloud_account="111122223333")])
    lake.close()
    assert peer.files()[0].parent == peer.root / "region=eu-west-1/accountId=111122223333/eventDay=20261123"


@pytest.mark.parametrize("stamp", ["0000-01-01T00:00:00.000Z", "../../../../x", "2026-13-45T00:00:00.000Z", ""])
def test_a_time_that_is_none_is_rejected_alone(peer, stamp):
    lake = connect(peer)
    body = msgspec.json.encode({**msgspec.json.decode(make_event(1).body), "timestamp": stamp})
    bad = EncodedEvent(make_event(1).event_id, stamp, body)
    found = send(lake, [make_event(0), bad, make_event(2)])
    lake.close()
    assert [status for status, _ in found] == ["delivered", "rejected", "delivered"]
    assert len(peer.received()) == 2


def test_the_same_batch_again_is_a_duplicate(peer):
    lake = connect(peer)
    events = make_events(50)
    assert set(send(lake, events)) == {("delivered", "")}
    assert set(send(lake, list(reversed(events)))) == {("duplicate", "")}
    assert set(send(lake, [*events[:3], *events[:3]])) == {("delivered", ""), ("duplicate", "")}
    lake.close()
    assert len(peer.files()) == 2


def test_a_number_that_no_column_holds_is_rejected_alone(peer):
    lake = connect(peer)
    events = [make_event(number) for number in range(9)]
    events[4] = make_event(4, token_count=2**63)
    found = send(lake, events)
    lake.close()
    assert [place for place, (status, _) in enumerate(found) if status != "delivered"] == [4]
    assert found[4] == ("rejected", "unstorable")
    assert sorted(peer.received()) == sorted(event.event_id for event in events[:4] + events[5:])


def test_what_is_too_large_is_cut_or_rejected(peer):
    lake = connect(peer, event_bytes=5_000)
    assert send(lake, [oversize_event(1, 30_000)]) == [("delivered", "")]
    assert peer.rows()[0]["metadata"]["is_truncated"] is True
    strict = connect(peer, event_bytes=5_000, oversize="reject")
    assert send(strict, [oversize_event(2, 30_000)]) == [("rejected", "event_too_large")]
    lake.close()
    strict.close()


def test_readers_never_see_half_a_file(peer):
    lake = connect(peer)
    send(lake, make_events(100))
    lake.close()
    everything = [path for path in peer.root.rglob("*") if path.is_file()]
    assert everything == peer.files()
    assert everything[0].stat().st_mode & 0o222 == 0


def test_a_full_disk_judges_nothing(peer, monkeypatch):
    lake = connect(peer)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_lake_stores.shutil, "copyfile", full)
    with pytest.raises(TransientError, match="No space left"):
        send(lake, make_events(5))
    monkeypatch.undo()
    assert [path for path in peer.root.rglob("*") if path.is_file()] == []
    assert set(send(lake, make_events(5))) == {("delivered", "")}
    lake.close()


def test_one_partition_that_fails_holds_up_no_other(peer):
    class Half(LocalStore):
        def put(self, key, file):
            if "region=us-east-1" in key:
                raise TransientError("not now")
            return super().put(key, file)

    lake = connect(peer, Half(peer.root))
    events = [make_event(number, cloud_region=("eu-west-1", "us-east-1")[number % 2]) for number in range(10)]
    found = send(lake, events)
    lake.close()
    assert [status for status, _ in found] == ["delivered", "retry"] * 5
    assert len(peer.received()) == 5


# --- compaction


def test_compaction_merges_and_drops_repeats(peer):
    lake = connect(peer, compact_after_seconds=0)
    for number in range(6):
        send(lake, make_events(20, "c", number * 10))
    assert len(peer.received()) == 120
    done = lake.compact()
    assert (done.files_before, done.files_after, done.rows, done.repeats) == (6, 1, 120, 50)
    assert len(peer.received()) == len(set(peer.received())) == 70
    times = [row["time"] for row in peer.rows()]
    assert times == sorted(times)
    again = lake.compact()
    assert again.files_before == 0
    lake.close()


def test_compaction_leaves_young_files_and_other_partitions(peer):
    lake = connect(peer, compact_after_seconds=3_600)
    for number in range(4):
        send(lake, [make_event(number, cloud_region=("eu-west-1", "us-east-1")[number % 2])])
    assert lake.compact().files_before == 0
    for path in peer.files():
        os.utime(path, (1, 1))
    done = lake.compact()
    lake.close()
    assert (done.files_before, done.files_after) == (4, 2)
    assert {path.parent.parent.parent.name for path in peer.files()} == {"region=eu-west-1", "region=us-east-1"}


def test_a_crash_between_merge_and_removal_is_mended_by_the_next_compaction(peer):
    class Dying(LocalStore):
        def delete(self, key):
            raise TransientError("killed here")

    lake = connect(peer, Dying(peer.root), compact_after_seconds=0)
    for number in range(3):
        send(lake, make_events(10, "d", number * 10))
    with pytest.raises(TransientError):
        lake.compact()
    assert set(peer.received()) == {event.event_id for event in make_events(30, "d")}
    assert len(peer.received()) == 60
    lake.close()
    healthy = connect(peer, compact_after_seconds=0)
    healthy.compact()
    healthy.close()
    assert len(peer.received()) == 30


# --- settings and S3


def extra(name):
    """Import what an extra brings; where it is missing the test is left out, but not in CI."""
    return importlib.import_module(name) if os.environ.get("CI") else pytest.importorskip(name)


@pytest.mark.parametrize("changes", [{"directory": ""}, {"bucket": "b"}])
def test_a_lake_is_one_place(changes):
    with pytest.raises(ConfigError, match="directory or a bucket"):
        LakeDestination(LakeSettings(**{"directory": "lake", **changes}))


def test_check_names_a_place_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    lake = LakeDestination(LakeSettings(directory=str(blocked / "lake")))
    (found,) = lake.check()
    assert "cannot be written" in found
    with pytest.raises(TransientError):
        send(lake, make_events(1))
    lake.close()


@pytest.fixture
def bucket(monkeypatch):
    moto_server = extra("moto.server")
    boto3 = extra("boto3")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=url)
    client.create_bucket(Bucket="ai-audit-lake")
    yield url, client
    server.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_s3_holds_what_a_directory_would(bucket, tmp_path):
    url, client = bucket
    lake = LakeDestination(
        LakeSettings(
            bucket="ai-audit-lake", prefix="aitrail/", region="us-east-1", endpoint=url, compact_after_seconds=0
        )
    )
    assert lake.check() == []
    events = make_events(60)
    assert set(send(lake, events[:40])) == {("delivered", "")}
    assert set(send(lake, events[:40])) == {("duplicate", "")}
    assert set(send(lake, events[30:])) == {("delivered", "")}
    keys = [one["Key"] for one in client.list_objects_v2(Bucket="ai-audit-lake")["Contents"]]
    assert len(keys) == 2
    assert all(key.startswith("aitrail/class_uid=6003/region=") for key in keys)
    time.sleep(1.1)
    done = lake.compact()
    assert (done.files_before, done.files_after, done.repeats) == (2, 1, 10)
    (key,) = [one["Key"] for one in client.list_objects_v2(Bucket="ai-audit-lake")["Contents"]]
    target = tmp_path / "merged.parquet"
    client.download_file("ai-audit-lake", key, str(target))
    with duckdb.connect() as engine:
        found = engine.execute("SELECT metadata.uid FROM read_parquet(?)", [str(target)]).fetchall()
    assert sorted(one for (one,) in found) == sorted(event.event_id for event in events)
    lake.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_missing_bucket_is_named(bucket):
    url, _ = bucket
    lake = LakeDestination(LakeSettings(bucket="no-such-bucket", region="us-east-1", endpoint=url))
    (found,) = lake.check()
    assert "no-such-bucket" in found
    with pytest.raises(ConfigError, match="NoSuchBucket"):
        send(lake, make_events(2))
    lake.close()


class _Answering:
    """A client whose every call fails with one code."""

    def __init__(self, code):
        errors = extra("botocore.exceptions")
        self.exceptions = errors
        self._error = errors.ClientError({"Error": {"Code": code, "Message": "secret text"}}, "PutObject")

    def put_object(self, **arguments):
        raise self._error

    head_object = get_object = delete_object = put_object


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDenied", AuthError),
        ("RequestTimeTooSkewed", AuthError),
        ("403", AuthError),
        ("ExpiredToken", AuthError),
        ("NoSuchBucket", ConfigError),
        ("PermanentRedirect", ConfigError),
        ("SlowDown", TransientError),
        ("InternalError", TransientError),
        ("SomethingNew", TransientError),
    ],
)
def test_every_code_of_s3_has_its_class(tmp_path, code, kind):
    store = S3Store(_Answering(code), "ai-audit-lake", "p", where="destinations.lake")
    file = tmp_path / "x.parquet"
    file.write_bytes(b"x")
    for call in (lambda: store.put("k", file), lambda: store.exists("k"), lambda: store.delete("k")):
        with pytest.raises(kind) as caught:
            call()
        assert "secret text" not in str(caught.value)
    assert store.check()


def test_a_race_for_a_name_is_a_duplicate(tmp_path):
    file = tmp_path / "x.parquet"
    file.write_bytes(b"x")
    assert S3Store(_Answering("PreconditionFailed"), "b", "").put("k", file) is False
    local = LocalStore(tmp_path / "lake")
    assert local.put("a/k.parquet", file) is True
    assert local.put("a/k.parquet", file) is False
    assert [Path(one.key).name for one in local.listing("")] == ["k.parquet"]
