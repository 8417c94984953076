"""The command line as a process: exit codes, messages without a traceback, streams that are closed, full or piped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import make_store

RECORD = {
    "eventVersion": "1.11",
    "eventTime": "2026-11-20T10:00:00Z",
    "eventSource": "bedrock.amazonaws.com",
    "eventName": "InvokeModel",
    "awsRegion": "eu-west-1",
    "sourceIPAddress": "203.0.113.9",
    "userAgent": "aws-cli",
    "requestParameters": {"modelId": "anthropic.claude-3-haiku-20240307-v1:0"},
    "requestID": "r1",
    "eventID": "11111111-2222-4333-8444-555555555555",
    "eventType": "AwsApiCall",
    "recipientAccountId": "111122223333",
    "userIdentity": {"type": "IAMUser", "userName": "ines", "arn": "arn:aws:iam::111122223333:user/ines"},
}


def aitrail(*arguments: object, cwd: Path, stdin: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    run = "import sys; sys.argv[0] = 'aitrail'; from aitrail.runtime.cli import main; main()"
    environment = {**os.environ, "COLUMNS": "120", **options.pop("env", {})}
    done = subprocess.run(
        [sys.executable, "-c", run, *map(str, arguments)],
        cwd=cwd,
        input=stdin,
        text=True,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        env=environment,
        timeout=120,
        **options,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "trail.json").write_text(json.dumps(RECORD) + "\n")
    return tmp_path / "logs"


# -- collect


def test_collect_says_what_it_did_and_nothing_else(tmp_path: Path, logs: Path) -> None:
    done = aitrail("collect", "logs", cwd=tmp_path)
    assert done.returncode == 0
    first, second = done.stderr.splitlines()
    assert first.startswith("1 new event from 1 record in 1 file")
    assert second == "next: aitrail report --store aitrail-store"
    again = aitrail("collect", "logs", cwd=tmp_path)
    assert (again.returncode, again.stderr.startswith("nothing new to read")) == (0, True)


@pytest.mark.parametrize("paths", [["nowhere"], ["*.nowhere"], [""], ["nowhere", "either"]])
def test_collect_of_nothing_is_an_error_and_makes_no_store(tmp_path: Path, paths: list[str]) -> None:
    done = aitrail("collect", *paths, cwd=tmp_path)
    assert done.returncode == 2
    assert "nothing there to read" in done.stderr
    assert "fix:" in done.stderr
    assert not (tmp_path / "aitrail-store").exists()


def test_collect_reads_the_rest_and_still_says_what_is_missing(tmp_path: Path, logs: Path) -> None:
    done = aitrail("collect", "logs", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "1 new event" in done.stderr
    assert "nothing there to read: nowhere; the rest is read" in done.stderr


def test_collect_leaves_its_own_store_alone(tmp_path: Path, logs: Path) -> None:
    for expected in (1, 0):
        done = aitrail("collect", ".", "--json", cwd=tmp_path)
        summary = json.loads(done.stdout)
        assert (summary["new"], summary["rejected"]) == (expected, {})
        assert any("an aitrail store" in note for note in summary["notes"])


@pytest.mark.parametrize("name", ["a[/b]", "[red]x", "a b"])
def test_names_are_no_markup(tmp_path: Path, logs: Path, name: str) -> None:
    done = aitrail("collect", "logs", "--store", name, cwd=tmp_path)
    assert done.returncode == 0
    assert name in done.stderr
    config = tmp_path / "c.toml"
    config.write_text(f"[store]\ndir = '{name}'\n[sources.logs]\npaths = ['logs']\n")
    config.rename(tmp_path / f"{name.replace('/', '')}.toml")
    checked = aitrail("check", "-c", f"{name.replace('/', '')}.toml", cwd=tmp_path)
    assert checked.returncode == 0
    assert name.replace("/", "") in checked.stdout


@pytest.mark.parametrize("tenant", ["", "A B", "[red]x"])
def test_a_tenant_has_a_plain_name(tmp_path: Path, logs: Path, tenant: str) -> None:
    done = aitrail("collect", "logs", "--tenant", tenant, cwd=tmp_path)
    assert done.returncode == 2
    assert "--tenant: the name" in done.stderr


@pytest.mark.parametrize("store", ["file", "file/below", "/proc/aitrail"])
def test_a_store_that_cannot_be_made(tmp_path: Path, logs: Path, store: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "c.toml").write_text(f"[store]\ndir = '{store}'\n[sources.logs]\npaths = ['logs']\n")
    done = aitrail("run", "--once", "-c", "c.toml", cwd=tmp_path)
    assert done.returncode == 5
    assert "fix: name" in done.stderr


def test_ten_notes_are_enough_for_a_person(tmp_path: Path, logs: Path) -> None:
    for number in range(30):
        (logs / f"link{number}").symlink_to("trail.json")
    done = aitrail("collect", "logs", cwd=tmp_path)
    assert done.stderr.count("note: ") == 11
    assert "and 20 more" in done.stderr


# -- run


def test_run_once_tells_what_it_could_not_read(tmp_path: Path, logs: Path) -> None:
    (tmp_path / "aitrail.toml").write_text("[sources.logs]\npaths = ['logs', 'nowhere']\n")
    done = aitrail("run", "--once", cwd=tmp_path)
    assert done.returncode == 0
    assert "nowhere: no such file or directory" in done.stderr
    assert "1 new event" in done.stderr
    shown = aitrail("status", cwd=tmp_path)
    assert f"not read: logs: {tmp_path}/nowhere: no such file or directory" in shown.stdout
    (tmp_path / "nowhere").mkdir()
    assert aitrail("run", "--once", cwd=tmp_path).returncode == 0
    assert "not read" not in aitrail("status", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[sources.a]\npaths = ['\\u0000']\n".replace("'", '"'), "NUL"),
        ('[sources.a]\npaths = ["x"]\ntenant = "A B"\n', "the name 'A B' is not allowed"),
        ('[sources."x\\ny"]\npaths = ["x"]\n', "is not allowed"),
    ],
)
def test_hostile_configurations_get_one_clean_line(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "aitrail.toml").write_text(text)
    for command in (["check"], ["run", "--once"]):
        done = aitrail(*command, cwd=tmp_path)
        assert done.returncode == 2
        assert expected in done.stderr
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) <= 2


def test_check_looks_at_destinations_and_at_tenants_without_a_section(tmp_path: Path, logs: Path) -> None:
    (tmp_path / "aitrail.toml").write_text(
        '[tenants.acme]\ncontent = "none"\nkey = "env:SHORT"\n[sources.a]\npaths = ["logs"]\ntenant = "acne"\n'
        '[destinations.x]\ntype = "no"\n'
    )
    done = aitrail("check", cwd=tmp_path, env={"SHORT": "short"})
    assert done.returncode == 2
    assert "shorter than 16 bytes" in done.stdout
    assert not (tmp_path / "aitrail-store").exists()
    assert "tenant 'acne' has no section" in done.stdout
    assert "unknown destination type 'no'" in done.stdout


# -- reading


def test_times_with_a_zone_can_be_asked_for(store: Path, tmp_path: Path) -> None:
    sql = "SELECT TIMESTAMPTZ '2026-01-01 00:00:00+02' AS t, now() > max(timestamp) OR true AS later FROM events"
    done = aitrail("query", sql, "--store", store, "--format", "json", cwd=tmp_path)
    assert json.loads(done.stdout) == [{"t": "2025-12-31T22:00:00.000Z", "later": True}]


@pytest.mark.parametrize("time", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00"])
def test_times_outside_the_calendar(store: Path, tmp_path: Path, time: str) -> None:
    done = aitrail("report", "--since", time, "--store", store, cwd=tmp_path)
    assert done.returncode == 2
    assert "is not a date or time" in done.stderr


def test_a_span_may_be_longer_than_history(store: Path, tmp_path: Path) -> None:
    assert aitrail("report", "--last", "999999w", "--store", store, cwd=tmp_path).returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [["report"], ["schema"], ["query", "SELECT * FROM events"]])
def test_a_full_disk_behind_the_output(store: Path, tmp_path: Path, command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = aitrail(*command, cwd=tmp_path, stdout=full, env={"AITRAIL_STORE": str(store)})
    assert done.returncode == 1
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("command", [["report"], ["explain", "0000"], ["query", "SELECT repeat('x', 1000000)"]])
def test_a_reader_that_went_away(store: Path, tmp_path: Path, command: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = aitrail(*command, cwd=tmp_path, stdout=write_end, env={"AITRAIL_STORE": str(store)})
    finally:
        os.close(write_end)
    assert done.returncode == (2 if command[0] == "explain" else 0)


def test_closed_streams(store: Path, tmp_path: Path) -> None:
    done = aitrail("report", "--store", store, cwd=tmp_path, preexec_fn=lambda: os.close(1))
    assert done.returncode == 0


def test_nobody_there_to_say_yes(store: Path, tmp_path: Path) -> None:
    done = aitrail("store", "retain", "--older-than", "1d", "--store", store, cwd=tmp_path)
    assert done.returncode == 2
    assert "nobody said yes" in done.stderr
    assert "--yes" in done.stderr


# -- demo


def test_demo_again_and_of_another_day(tmp_path: Path) -> None:
    first = aitrail("demo", "--events", "300", cwd=tmp_path)
    assert (first.returncode, first.stderr) == (0, "")
    again = aitrail("demo", "--events", "300", cwd=tmp_path)
    assert again.returncode == 0
    assert "note:" not in again.stdout + again.stderr
    other = aitrail("demo", "--events", "300", "--seed", "2", cwd=tmp_path)
    assert other.returncode == 2
    assert "--dir" in other.stderr
