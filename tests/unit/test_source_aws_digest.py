"""CloudTrail's proof: who signed a digest, what a log file should be, and every way of tampering with either.

The trail is synthetic (``aitrail.testing.aws_trail``), signed with a key pair of the test.
"""

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from aitrail.errors import ConfigError
from aitrail.runtime.cli import cli
from aitrail.sources._cloudtrail_stores import DirectoryStore, KeyService
from aitrail.sources.cloudtrail_digest import (
    Digest,
    LogFile,
    PublicKeys,
    Signature,
    check_log,
    load_keys,
    parse,
    signed_text,
    verify,
)
from aitrail.sources.cloudtrail_verify import Finding, Verifier
from aitrail.testing.aws_flow import MORNING, trail_record
from aitrail.testing.aws_trail import FINGERPRINT, Trail, key_pair, public_der, public_pem

HOUR = 3_600


class Bytes:
    """Stored bytes of a log file."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, count: int) -> bytes:
        data, self.data = self.data[:count], self.data[count:]
        return data


class Copy:
    """A copy of a bucket in a directory, with or without the digests' metadata."""

    def __init__(self, root: Path, *, metadata: bool = True) -> None:
        self.root = root
        self.metadata = metadata

    def put(self, key: str, body: bytes, metadata: dict[str, str]) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        if metadata and self.metadata:
            path.with_name(path.name + ".metadata.json").write_text(json.dumps(metadata))


def keys_file(directory: Path) -> Path:
    path = directory / "keys.json"
    listed = {"Value": base64.b64encode(public_der()).decode(), "Fingerprint": FINGERPRINT}
    path.write_text(json.dumps({"PublicKeyList": [listed]}))
    return path


def written(root: Path, *, metadata: bool = True, hours: int = 4) -> Trail:
    """A trail of some hours, two log files each; one file was delivered an hour late."""
    trail = Trail(Copy(root, metadata=metadata).put, "acme-trail")
    number = 0
    late = None
    for hour in range(hours):
        start = MORNING + hour * HOUR
        files = [trail.log([trail_record(number + i, start + i)], start + 600 * (i + 1)) for i in range(2)]
        number += 2
        if late is not None:
            files.append(late)
        late = trail.log([trail_record(9_000 + hour, start)], start + 3_540) if hour + 1 < hours else None
        trail.digest(files, start + HOUR)
    backfilled = trail.log([trail_record(10_000, MORNING)], MORNING + 60)
    trail.digest([backfilled], MORNING + HOUR, backfill=True)
    trail.digest([], MORNING + 2 * HOUR, backfill=True)
    return trail


def findings(root: Path, **options: float) -> list[Finding]:
    # The keys lie beside the copy, not in it.
    keys = KeyService(None, str(keys_file(root.parent)))
    return list(Verifier(DirectoryStore(root, "", keys), **options).findings())


def wrong(root: Path, **options: float) -> list[tuple[str, str]]:
    return sorted(
        (one.kind, one.verdict) for one in findings(root, **options) if one.verdict not in ("valid", "pending")
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "copy"
    path.mkdir()
    return path


def test_an_untouched_trail_is_valid_with_its_backfill_chain(root: Path) -> None:
    trail = written(root)
    found = findings(root)
    assert {one.verdict for one in found} == {"valid"}
    assert sorted(one.origin for one in found if one.kind == "log") == sorted(trail.logs)
    assert sorted(one.origin for one in found if one.kind == "digest") == sorted(trail.digests)


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


def _one_byte(root: Path, trail: Trail) -> None:
    _rewrite(root / trail.logs[0], lambda text: text.replace(b"203.0.113.7", b"203.0.113.8"))


def _log_deleted(root: Path, trail: Trail) -> None:
    (root / trail.logs[1]).unlink()


def _log_added(root: Path, trail: Trail) -> None:
    (root / (trail.logs[0].replace("T0910Z", "T0911Z"))).write_bytes(gzip.compress(b'{"Records":[]}'))


def _data_behind(root: Path, trail: Trail) -> None:
    path = root / trail.logs[0]
    path.write_bytes(path.read_bytes() + gzip.compress(b'{"Records":[]}'))


def _not_gzip(root: Path, trail: Trail) -> None:
    path = root / trail.logs[0]
    path.write_bytes(gzip.decompress(path.read_bytes()))


def _cut_log(root: Path, trail: Trail) -> None:
    path = root / trail.logs[0]
    path.write_bytes(path.read_bytes()[:-9])


def _digest_changed(root: Path, trail: Trail) -> None:
    _rewrite(root / trail.digests[-3], lambda text: text.replace(b'"newestEventTime": null', b'"newestEventTime": 1'))


def _digest_deleted(root: Path, trail: Trail) -> None:
    (root / trail.digests[1]).unlink()


def _digest_resigned(root: Path, trail: Trail) -> None:
    """Somebody takes a log file out of a digest and signs it with a key of his own."""
    path = root / trail.digests[1]
    digest = json.loads(gzip.decompress(path.read_bytes()))
    digest["logFiles"].pop()
    path.write_bytes(gzip.compress(json.dumps(digest).encode()))
    side = path.with_name(path.name + ".metadata.json")
    side.write_text(json.dumps({"signature": "00" * 256, "signature-algorithm": "SHA256withRSA"}))


def _digest_moved(root: Path, trail: Trail) -> None:
    """An older, well-signed digest stands in the place of a newer one."""
    newer, older = root / trail.digests[2], root / trail.digests[1]
    for suffix in ("", ".metadata.json"):
        newer.with_name(newer.name + suffix).write_bytes(older.with_name(older.name + suffix).read_bytes())


TAMPERED = {
    "one byte of a log file": (_one_byte, [("log", "mismatch")]),
    "a log file deleted": (_log_deleted, [("log", "missing")]),
    "a log file added": (_log_added, [("log", "unsigned")]),
    "data behind the gzip member": (_data_behind, [("log", "mismatch")]),
    "a log file that is not packed": (_not_gzip, [("log", "mismatch")]),
    "a log file cut off": (_cut_log, [("log", "mismatch")]),
    "a digest changed": (_digest_changed, [("digest", "invalid"), ("log", "unsigned"), ("log", "unsigned"),
                                           ("log", "unsigned")]),
    "a digest deleted": (_digest_deleted, [("digest", "missing"), ("log", "unsigned"), ("log", "unsigned"),
                                           ("log", "unsigned")]),
    "a digest signed by another": (_digest_resigned, [("digest", "invalid"), ("log", "unsigned"), ("log", "unsigned"),
                                                      ("log", "unsigned")]),
    "a digest moved": (_digest_moved, [("digest", "invalid"), ("log", "unsigned"), ("log", "unsigned"),
                                       ("log", "unsigned")]),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_found_and_named(root: Path, name: str) -> None:
    tamper, expected = TAMPERED[name]
    trail = written(root)
    tamper(root, trail)
    assert wrong(root) == expected


def test_a_plain_copy_has_signatures_for_all_but_the_newest_digests(root: Path) -> None:
    written(root, metadata=False)
    unsigned = [one for one in findings(root) if one.verdict == "unsigned"]
    assert sum(one.kind == "digest" for one in unsigned) == 2, "the newest of each chain"
    assert sum(one.kind == "log" for one in unsigned) == 3, "and the files that only they list"


def test_logging_that_was_stopped_is_a_gap(root: Path) -> None:
    trail = Trail(Copy(root).put, "acme-trail")
    trail.digest([trail.log([], MORNING)], MORNING + HOUR)
    trail.digest([trail.log([], MORNING + 3 * HOUR)], MORNING + 4 * HOUR, chained=False)
    assert wrong(root) == [("digest", "gap")]


def test_files_too_new_for_a_digest_are_pending_and_without_digests_unsigned(root: Path) -> None:
    trail = written(root)
    trail.log([], MORNING + 4 * HOUR + 60)
    assert [one.verdict for one in findings(root) if one.verdict != "valid"] == ["pending"]
    other = Trail(Copy(root).put, "acme-trail", region="eu-west-1")
    other.log([], MORNING)
    assert wrong(root) == [("log", "unsigned")], "no digest at all vouches for that region"


def test_a_backfill_digest_is_checked_with_the_keys_of_when_it_was_made(root: Path) -> None:
    """Its hour may be long ago, and the key of that time another one."""
    trail = Trail(Copy(root).put, "acme-trail")
    trail.digest([trail.log([], MORNING)], MORNING + HOUR, backfill=True)
    asked: list[str] = []

    class Keys(KeyService):
        def keys(self, region: str, start: str, end: str) -> PublicKeys:
            asked.append(start)
            return PublicKeys({FINGERPRINT: public_der()} if start == made else {})

    side = next(root.rglob("*.metadata.json"))
    metadata = json.loads(side.read_text())
    made = metadata["backfill-generation-timestamp"] = "2027-02-01T00:00:00Z"
    side.write_text(json.dumps(metadata))
    found = list(Verifier(DirectoryStore(root, "", Keys(None))).findings())
    assert {one.verdict for one in found} == {"valid"}
    assert len(asked) == 2


def test_a_range_checks_only_its_own_part_of_the_chain(root: Path) -> None:
    trail = written(root)
    (root / trail.digests[0]).unlink()
    assert ("digest", "missing") in wrong(root)
    assert wrong(root, start=MORNING + 2 * HOUR) == []


def test_paths_in_digests_lead_nowhere_outside(root: Path) -> None:
    trail = written(root, hours=1)
    (root.parent / "secret.json.gz").write_bytes(gzip.compress(b"{}"))
    digest = json.loads(gzip.decompress((root / trail.digests[0]).read_bytes()))
    digest["logFiles"][0]["s3Object"] = "../secret.json.gz"
    (root / trail.digests[0]).write_bytes(gzip.compress(json.dumps(digest).encode()))
    found = {one.origin: one.verdict for one in findings(root)}
    assert found["../secret.json.gz"] == "missing"


def _signed(**changes: object) -> tuple[Digest, bytes]:
    body = {
        "digestStartTime": "2026-11-23T09:00:00Z",
        "digestEndTime": "2026-11-23T10:00:00Z",
        "digestS3Bucket": "acme-trail",
        "digestS3Object": "AWSLogs/x.json.gz",
        "digestPublicKeyFingerprint": FINGERPRINT,
        **changes,
    }
    text = json.dumps(body).encode()
    return parse(text), text


def test_the_signed_text_is_what_the_documentation_says() -> None:
    digest, text = _signed(previousDigestSignature="ab12")
    lines = signed_text(digest, text).split(b"\n")
    assert lines[0] == b"2026-11-23T10:00:00Z"
    assert lines[1] == b"acme-trail/AWSLogs/x.json.gz"
    assert len(lines[2]) == 64
    assert lines[3] == b"ab12"
    digest, text = _signed()
    assert signed_text(digest, text).endswith(b"\nnull")


def test_what_cannot_be_checked_is_unsigned_and_never_valid() -> None:
    digest, text = _signed()
    keys = PublicKeys({FINGERPRINT: public_der()})
    assert verify(digest, text, Signature(), keys)[0] == "unsigned"
    assert verify(digest, text, Signature("00", "MD5withRSA"), keys)[0] == "unsigned"
    assert verify(digest, text, Signature("00", "SHA256withRSA"), PublicKeys())[0] == "unsigned"
    assert verify(digest, text, Signature("zz", "SHA256withRSA"), keys)[0] == "invalid"
    assert verify(digest, text, Signature("00" * 256, "SHA256withRSA"), keys)[0] == "invalid"
    assert check_log(Bytes(gzip.compress(b"x")), LogFile("b", "k", "00", "MD5"))[0] == "mismatch"


def test_public_keys_come_from_pem_or_json_and_nothing_else(tmp_path: Path) -> None:
    pem = tmp_path / "keys.pem"
    pem.write_bytes(public_pem("other") + b"\n" + public_pem())
    assert len(load_keys(pem).find("any")) == 2
    assert load_keys(keys_file(tmp_path)).find(FINGERPRINT.upper())[0].key_size == 2_048
    assert not load_keys(keys_file(tmp_path)).find("another")
    broken = tmp_path / "broken.pem"
    for text in (b"", b"{}", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b'{"PublicKeyList":[]}'):
        broken.write_bytes(text)
        with pytest.raises(ConfigError, match="no RSA public key"):
            load_keys(broken)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_keys(tmp_path / "nowhere")
    assert key_pair("other") is not key_pair()


def test_the_command_says_what_is_wrong_and_exits_with_one(root: Path) -> None:
    trail = written(root)
    keys = str(keys_file(root.parent))
    command = ["cloudtrail", "verify", str(root), "--public-keys", keys, "--offline"]
    good = CliRunner().invoke(cli, command)
    assert good.exit_code == 0, good.output
    assert good.output.splitlines() == ["digests: 6 valid", "log files: 12 valid"]
    _one_byte(root, trail)
    bad = CliRunner().invoke(cli, command)
    assert bad.exit_code == 1
    assert bad.output.startswith(f"mismatch  log    {trail.logs[0]}")
    rows = [json.loads(line) for line in CliRunner().invoke(cli, [*command, "--json"]).output.splitlines()]
    assert rows[-1]["counts"]["log.mismatch"] == 1
    assert {row["verdict"] for row in rows[:-1]} == {"valid", "mismatch"}
    listed = CliRunner().invoke(cli, [*command, "--all"]).output
    assert listed.count("valid ") >= 17


def test_the_command_explains_wrong_use(root: Path) -> None:
    for options, text in (
        ([], "name one place"),
        ([str(root), "--bucket", "acme-trail"], "name one place"),
        ([str(root), "--offline"], "the public keys must come from a file"),
        ([str(root), "--public-keys", str(keys_file(root.parent)), "--start", "yesterday"], "is no time"),
        ([str(root), "--public-keys", str(keys_file(root.parent))], "no digest and no log file"),
    ):
        result = CliRunner().invoke(cli, ["cloudtrail", "verify", *options])
        assert isinstance(result.exception, ConfigError)
        assert text in str(result.exception)
