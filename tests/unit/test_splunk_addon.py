"""The add-on's parts: its table of inputs and the files made from it, its state, secrets, writer and package."""

import ast
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import msgspec
import pytest
from click.testing import CliRunner
from splunklib.client import Service
from splunklib.modularinput import EventWriter

from aitrail.compiler.emit import splunk_addon
from aitrail.compiler.emit.splunk_addon import PACK
from aitrail.compiler.emit.splunk_cim import props as app_props
from aitrail.destinations._splunk_settings import SOURCETYPES as BY_HEC
from aitrail.errors import AuthError, ConfigError, StoreError, TransientError
from aitrail.event import AccessEvent, encode
from aitrail.ports import EncodedEvent
from aitrail.registry import make_source
from aitrail.runtime.cli import cli
from aitrail.runtime.packaging import addon
from aitrail.runtime.packaging.addon_parts import kept
from aitrail.runtime.scheduled.splunk_passwords import Passwords
from aitrail.runtime.scheduled.splunk_settings import configuration, prepare, read
from aitrail.runtime.scheduled.splunk_state import InputState, locked
from aitrail.runtime.scheduled.splunk_writer import EVENT_BYTES, SplunkdDestination
from aitrail.secrets import SCHEMES as SECRETS
from aitrail.splunk_schemes import BY_NAME, MASK, SCHEMES, SOURCETYPES, Scheme
from aitrail.spool import DeadLetter, journal
from aitrail.testing.splunkd_peer import SplunkdPeer

ROOT = Path(__file__).parents[2] / "splunk_app" / "TA-aitrail"
APP = ROOT.with_name("aitrail")
IDS = [one.name for one in SCHEMES]


def stanzas(path: Path) -> ConfigParser:
    parser = ConfigParser(interpolation=None, delimiters=("=",), strict=True)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


# --- files


def test_every_input_has_its_script_its_defaults_and_its_words() -> None:
    inputs = stanzas(ROOT / "default" / "inputs.conf")
    assert inputs.sections() == IDS
    assert {inputs[name]["python.required"] for name in IDS} == {"3.13"}
    assert sorted(path.stem for path in (ROOT / "bin").glob("aitrail_*.py")) == sorted(IDS)
    for name in IDS:
        assert f'collector_library.run("{name}")' in (ROOT / "bin" / f"{name}.py").read_text(encoding="utf-8")
    text = (ROOT / "README" / "inputs.conf.spec").read_text(encoding="utf-8")
    for scheme in SCHEMES:
        part = text.split(f"[{scheme.name}://<name>]")[1].split("\n[")[0]
        assert [line.split(" = ")[0] for line in part.splitlines() if " = <" in line] == [
            one.name for one in scheme.args
        ]


def test_what_is_committed_is_what_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing takes seconds, and the app's test does it: both have the same icons.
    drawn = {
        size: (APP / "static" / name).read_bytes() for size, name in {36: "appIcon.png", 72: "appIcon_2x.png"}.items()
    }
    monkeypatch.setattr(splunk_addon, "icon", drawn.__getitem__)
    made = PACK.emit(None)  # type: ignore[arg-type]  # of the content nothing is needed
    assert {name for name, data in made.items() if (ROOT / name).read_bytes() != data} == set()
    by_hand = {"LICENSE", "README.md", "bin/collector_library.py", "metadata/default.meta"}
    found = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()}
    assert {one for one in found if "__pycache__" not in one} == {*made, *by_hand}


def test_an_older_splunk_is_told_what_is_missing() -> None:
    """What runs before the version is looked at is Python that Splunk 9 reads, too."""
    for path in (ROOT / "bin").glob("*.py"):
        ast.parse(path.read_bytes(), feature_version=(3, 7))
    done = subprocess.run([sys.executable, "-B", str(ROOT / "bin" / "aitrail_openai.py"), "--scheme"],
                          capture_output=True, text=True)  # fmt: skip
    told = "needs Python 3.13" if sys.version_info < (3, 13) else "has native parts for Linux"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("FATAL ")
    assert told in done.stderr


@pytest.mark.parametrize(
    ("system", "machine", "wanted"),
    [
        ("linux", "x86_64", "linux_x86_64"),
        ("linux", "AMD64", "linux_x86_64"),
        ("linux", "aarch64", "linux_aarch64"),
        ("linux", "arm64", "linux_aarch64"),
        ("linux", "ppc64le", ""),
        ("darwin", "arm64", ""),
        ("win32", "AMD64", ""),
    ],
)
def test_native_modules_are_of_this_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, wanted: str
) -> None:
    spec = importlib.util.spec_from_file_location("collector_library", ROOT / "bin" / "collector_library.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in addon.MACHINES:
        (tmp_path / f"linux_{name}").mkdir()
    paths = ["bin"]
    monkeypatch.setattr(module, "LIBRARY", tmp_path)
    monkeypatch.setattr(module, "sys", SimpleNamespace(version_info=(3, 13, 0), platform=system, path=paths))
    monkeypatch.setattr(module, "platform", SimpleNamespace(machine=lambda: machine))
    said = module.prepare()
    assert paths == ([str(tmp_path / wanted), str(tmp_path), "bin"] if wanted else ["bin"])
    assert ("native parts for Linux" in said) is not bool(wanted)


def test_no_secret_no_local_and_a_list_of_roles() -> None:
    for path in (ROOT / "default").rglob("*.conf"):
        assert not [line for line in path.read_text().splitlines() if line.startswith(("secret", "token", "password"))]
    assert not (ROOT / "local").exists()
    assert "write : [ admin, sc_admin ]" in (ROOT / "metadata" / "default.meta").read_text()
    assert json.loads((ROOT / "app.manifest").read_text())["info"]["id"]["name"] == "TA-aitrail"


def test_events_are_taken_in_as_the_app_says() -> None:
    assert {stream: BY_HEC[stream] for stream in SOURCETYPES} == SOURCETYPES
    mine, app = stanzas(ROOT / "default" / "props.conf"), app_props()
    for sourcetype in SOURCETYPES.values():
        assert {key: mine[sourcetype][key] for key in mine[sourcetype]} == {
            key: str(value) for key, value in app[sourcetype].items() if key in mine[sourcetype]
        }
        assert int(mine[sourcetype]["TRUNCATE"]) > EVENT_BYTES


@pytest.mark.parametrize("scheme", SCHEMES, ids=IDS)
def test_every_setting_is_one_of_the_source(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the form offers is taken by the source, with the type that it has there."""
    monkeypatch.setitem(SECRETS, "splunk", lambda name: "secret")
    texts = {"number": "2", "list": "a, b", "secret": "s"}
    special = {"start": "2026-11-01", "base_url": "https://api.example.com", "endpoint_url": "https://vpce.example.com",
               "content": "hash", "tenant": "retail", "ca_file": "", "proxy": "", "table_kind": "usage",
               "roles": "arn:aws:iam::111122223333:role/Audit", "regions": "us-east-1 eu-west-1",
               "table": "system.ai_gateway.usage"}  # fmt: skip
    given = {one.name: special.get(one.name, texts.get(one.kind, "name")) for one in scheme.args}
    one = read(scheme, "prod", given)
    config = configuration(one)
    source = make_source("prod", config.sources["prod"], config, Still(), b"")
    assert source.name == "prod"
    assert config.tenant("retail").content == "hash"
    getattr(source, "close", lambda: None)()


class Still:
    """A clock that stands."""

    def now(self) -> float:
        return 1_795_421_400.0

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


# --- settings


def trail(**settings: str) -> dict[str, str]:
    return {"regions": "us-east-1", **settings}


def prepared(secrets: dict[str, str], **settings: str) -> dict[str, str]:
    environment = {"AWS_PROFILE": "old", "AWS_SESSION_TOKEN": "old", "NO_PROXY": "intranet.example.com"}
    prepare(read(BY_NAME["aitrail_cloudtrail"], "prod", trail(**settings)), secrets, environment)
    return environment


def test_aws_keys_and_authorities_are_of_the_input() -> None:
    keys = prepared({"secret": "wJalr"}, access_key_id="AKIAIOSFODNN7EXAMPLE", ca_file="/etc/pki/own.pem")
    assert (keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"]) == ("AKIAIOSFODNN7EXAMPLE", "wJalr")
    assert keys["AWS_CA_BUNDLE"] == "/etc/pki/own.pem"
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & set(keys)
    assert "AWS_ACCESS_KEY_ID" not in prepared({})


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, None),
        ({"proxy": "none"}, ""),
        ({"proxy": "http://proxy.example.com:3128"}, "http://proxy.example.com:3128"),
        ({"proxy": "http://[2001:db8::1]:3128"}, "http://[2001:db8::1]:3128"),
        ({"proxy": "http://proxy.example.com:3128", "proxy_user": "a@b"},
         "http://a%40b:p%3Aw%2F@proxy.example.com:3128"),
    ],
)  # fmt: skip
def test_proxy(settings: dict[str, str], wanted: str | None) -> None:
    found = prepared({"proxy_password": "p:w/"}, **settings)
    assert found.get("HTTPS_PROXY") == wanted == found.get("https_proxy")
    assert found["NO_PROXY"].startswith("intranet.example.com,127.0.0.1,")
    assert "169.254.169.254" in found["no_proxy"]


@pytest.mark.parametrize(
    "proxy", ["proxy:3128", "http://a:b@proxy:3128", "ftp://p:1", "http://p", "http://p:x", "http://[:1"]
)
def test_proxy_that_is_none(proxy: str) -> None:
    with pytest.raises(ConfigError, match="proxy"):
        prepared({}, proxy=proxy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"content": "sealed"}, "there is no such mode"),
        ({"tenant": "Retail Bank"}, "tenant's name is not allowed"),
        ({"calls_per_second": "fast"}, "is no number"),
        ({"regions": " "}, "regions is missing"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configuration(read(BY_NAME["aitrail_cloudtrail"], "prod", trail(**settings)))


@pytest.mark.parametrize("name", ["", "../prod", "a/b", "a b", ".a", "ä", "x" * 65, "a\nb"])
def test_names_that_are_no_names_of_files(name: str) -> None:
    with pytest.raises(ConfigError, match="not allowed"):
        read(BY_NAME["aitrail_openai"], f"aitrail_openai://{name}", {"base_url": "https://api.example.com"})


# --- secrets


@pytest.fixture
def peer() -> Iterator[SplunkdPeer]:
    one = SplunkdPeer()
    yield one
    one.close()


def passwords(peer: SplunkdPeer, session: str = "") -> Passwords:
    url = urlsplit(peer.url)
    return Passwords(Service(scheme=url.scheme, host=url.hostname, port=url.port, token=session or peer.session))


def test_secrets_are_kept_changed_and_found(peer: SplunkdPeer) -> None:
    one = passwords(peer)
    assert one.find("aitrail_openai.org.secret") == ""
    one.keep("aitrail_openai.org.secret", "first &<>ä")
    one.keep("aitrail_openai.org.secret", "second &<>ä")
    assert one.resolve("aitrail_openai.org.secret") == "second &<>ä"
    with pytest.raises(ConfigError, match="there is no secret"):
        one.resolve("aitrail_openai.other.secret")


def test_tenant_key_is_made_once(peer: SplunkdPeer) -> None:
    first = passwords(peer).tenant_key()
    assert len(bytes.fromhex(first)) == 32
    assert passwords(peer).tenant_key() == first
    assert peer.changes == ["POST storage/passwords TA-aitrail:tenant_key:"]


def test_two_inputs_that_make_the_tenant_key_have_the_same(peer: SplunkdPeer) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(passwords(peer).tenant_key())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_mask_goes_to_where_the_input_is(peer: SplunkdPeer) -> None:
    peer.inputs["aitrail_openai/org"] = ("search", {"secret": "s", "base_url": "https://api.example.com"})
    passwords(peer).mask("aitrail_openai", "org", {"secret": "s"})
    assert peer.inputs["aitrail_openai/org"][1] == {"secret": MASK, "base_url": "https://api.example.com"}
    with pytest.raises(TransientError, match="data/inputs/aitrail_openai/gone"):
        passwords(peer).mask("aitrail_openai", "gone", {"secret": "s"})


def test_errors_of_splunkd_are_ours(peer: SplunkdPeer) -> None:
    with pytest.raises(AuthError, match="refuses the session"):
        passwords(peer, "old").find("x")
    url = peer.url
    peer.close()
    parts = urlsplit(url)
    with pytest.raises(TransientError, match="gives no answer"):
        Passwords(Service(scheme=parts.scheme, host=parts.hostname, port=parts.port, token="t")).find("x")


# --- state


def letter(number: int) -> DeadLetter:
    return DeadLetter(f"{number:024x}", "prod", "o", number, 0, 0, "not_json", "", "cloudtrail", "normalize")


def test_cursors_are_there_after_a_restart(tmp_path: Path) -> None:
    with locked(tmp_path / "prod") as ours:
        assert ours
        state = InputState(tmp_path / "prod")
        state.count({"records": 2})
        state.commit({"a": b"\x00\xff", "b": b"1"})
        state.commit({"b": b"2"})
    again = InputState(tmp_path / "prod")
    assert dict(again.items()) == {"a": b"\x00\xff", "b": b"2"}
    assert again.kept.counters == {"records": 2}
    assert sorted(path.name for path in (tmp_path / "prod").iterdir()) == ["dead_letters", "lock", "state.json"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(tmp_path):
        state = InputState(tmp_path)
        state.commit({"a": b"1"})

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(TransientError, match=r"state.json: cannot be written \(No space"):
            state.commit({"a": b"2"})
    assert state.get("a") == b"1" == InputState(tmp_path).get("a")
    assert not list(tmp_path.glob(".*"))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path) as first, locked(tmp_path) as second:
        assert (first, second) == (True, False)
    with locked(tmp_path) as third:
        assert third


def test_dead_letters_are_kept_once(tmp_path: Path) -> None:
    with locked(tmp_path):
        state = InputState(tmp_path)
        state.keep([letter(1), letter(2)])
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "dead_letters").iterdir()}
        state.keep([letter(2), letter(1)])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "dead_letters").iterdir()} == before
    assert msgspec.json.decode(min(before).read_bytes(), type=DeadLetter) == letter(1)


@pytest.mark.parametrize(("data", "message"), [(b"", "damaged"), (b"[]", "damaged"), (b'{"version":2}', "newer")])
def test_state_that_cannot_be_read(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "state.json").write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        InputState(tmp_path)


# --- writing


def access(text: str = "", number: int = 1) -> EncodedEvent:
    event = AccessEvent(
        event_id=f"{number:032x}", timestamp="2026-11-23T09:00:00.120Z", tenant_id="acme", source="openai_audit",
        prompt_text=text,
    )  # fmt: skip
    return EncodedEvent(event.event_id, event.timestamp, encode(event))


def written(events: list[EncodedEvent]) -> tuple[list[str], list[ET.Element]]:
    out = io.StringIO()
    writer = EventWriter(out, io.StringIO())
    ack = SplunkdDestination(writer, out, "aitrail_openai://org", "ai_audit").send(events, 0.0)
    writer.close()
    return [one.status for one in ack.verdicts], list(ET.fromstring(out.getvalue() or "<stream/>"))


def test_every_text_survives_the_xml() -> None:
    """XML 1.0 cannot say U+FFFE, U+FFFF and most control characters, not even by number; and has its own markup."""
    texts = [
        "".join(map(chr, range(0x100))),
        "\ufffe\uffff\ufffd\u2028\U0010ffff\U0001f600",
        "]]></data><data>&amp;<!--",
    ]
    statuses, nodes = written([access(text) for text in texts])
    assert statuses == ["delivered"] * 3
    assert [json.loads(node.findtext("data") or "")["prompt_text"] for node in nodes] == texts
    assert {(node.findtext("time"), node.findtext("sourcetype"), node.get("unbroken")) for node in nodes} == {
        ("1795424400.120", "ai:access:audit", "1")
    }


def test_what_is_too_large_is_cut_and_what_is_no_event_is_refused() -> None:
    statuses, nodes = written([access("x" * (EVENT_BYTES + 1)), EncodedEvent("1", "", b'{"a":1}{"b":2}')])
    assert statuses == ["delivered", "rejected"]
    body = json.loads(nodes[0].findtext("data") or "")
    assert (body["truncated"], len(json.dumps(body)) < EVENT_BYTES) == (True, True)


def test_delivered_is_what_splunkd_has_read() -> None:
    reader, end = os.pipe()
    with os.fdopen(end, "w", encoding="utf-8") as out:
        waited: list[float] = []

        def take(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                os.read(reader, 1 << 16)

        one = SplunkdDestination(EventWriter(out, io.StringIO()), out, "a://b", "", take)
        assert [verdict.status for verdict in one.send([access()], float("inf")).verdicts] == ["delivered"]
        assert len(waited) == 3
        with pytest.raises(TransientError, match="does not read"):
            one.send([access()], 0.0)
        leave = SplunkdDestination(EventWriter(out, io.StringIO()), out, "a://b", "", lambda seconds: os.close(reader))
        with pytest.raises(ConfigError, match="closed the pipe"):  # while what it was given is in it
            leave.send([access()], float("inf"))
        with pytest.raises(ConfigError, match="closed the pipe"):
            one.send([access()], float("inf"))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, end)  # for what is left in the buffer
        os.close(nowhere)


# --- the package


def test_the_journal_does_without_the_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes and the same checksum; only that nothing is compressed."""
    import sqlite3
    import zlib

    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE batch (file INTEGER, offset INTEGER, length INTEGER)")
    monkeypatch.setattr(journal, "COMPRESS_ABOVE_BYTES", -1)
    events = [access("question", number) for number in range(50)]
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    packed = journal.Journal(tmp_path / "with", connection)
    place = packed.append(events)
    crc32 = journal.crc32
    monkeypatch.setattr(journal, "zstandard", None)
    monkeypatch.setattr(journal, "crc32", zlib.crc32)
    with pytest.raises(StoreError, match="is compressed"):
        packed.read(place)
    plain = journal.Journal(tmp_path / "without", connection)
    other = plain.append(events)
    assert (place.codec, other.codec) == ("zstd", "raw")
    data = next((tmp_path / "without").glob("*.bin")).read_bytes()
    assert other.crc == zlib.crc32(data) == crc32(data)
    assert plain.read(other) == events
    packed.close()
    plain.close()
    connection.close()


def test_natives_of_the_polls_are_two() -> None:
    """What a poll imports natively is msgspec and RE2; the others of the collector are left out on purpose."""
    names = set(addon.needed().imports)
    assert {"msgspec", "google-re2"} <= names
    assert names & {"duckdb", "cryptography", "numpy", "onnxruntime", "confluent-kafka", "pytz"} == set()
    assert names & addon.LEFT_OUT == addon.LEFT_OUT
    asked = addon.asked(sorted(names))
    assert not [one for one in asked if one.startswith(tuple(addon.LEFT_OUT))]
    for machine in addon.MACHINES:
        lock = addon.SOURCE.with_name(f"TA-aitrail-{machine}.lock").read_text()
        locked_names = {line.partition("==")[0] for line in lock.splitlines() if not line.startswith("#")}
        assert {one.split(">")[0].split("=")[0] for one in asked} <= locked_names


def test_a_library_that_is_not_the_one_that_is_changed() -> None:
    with pytest.raises(ConfigError, match="not the file that is changed"):
        kept("botocore", {"botocore/session.py": b"import socket\n"})


def test_the_command_says_what_is_in_it_and_refuses_what_is_not_for_it(tmp_path: Path) -> None:
    def said(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["package", "splunk", *arguments])
        return result.exit_code, f"{result.output}{result.exception or ''}"

    code, text = said("--dry-run", "--json")
    assert (code, "msgspec>=0.19" in json.loads(text)["requirements"]) == (0, True)
    assert "splunk-sdk>=3,<4" in said("--dry-run")[1]
    for option in (["--arch", "arm64"], ["--no-compile"], ["--destinations", "splunk"], ["--bundle-boto3"]):
        code, text = said(*option)
        assert code != 0
        assert "not for the add-on of Splunk" in text
    code, text = said("--wheels", "/nonexistent", "--out", str(tmp_path / "a.spl"))
    assert code != 0
    assert "pip download" in text
    assert not list(tmp_path.iterdir())
