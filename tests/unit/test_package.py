"""``aitrail package``: what is in it, that it is the same twice, small, quick to import, and that it runs."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aitrail.errors import ConfigError
from aitrail.registry import DESTINATIONS, SOURCES
from aitrail.runtime.cli import cli
from aitrail.runtime.packaging import closure, sbom, tree, wheels
from aitrail.runtime.packaging.build import MANIFEST, SBOM, Options, plan
from aitrail.runtime.packaging.targets import TARGETS, choose
from aitrail.testing.lambda_place import Place, queue_event

# What Lambda's runtime brings along; all of it is pure Python.
RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath", "urllib3", "dateutil", "six.py")
SMALL = 15_000_000
QUICK_MS = 400.0


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["package", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


class Built:
    """Two builds of the same package, and what the second one is unpacked to."""

    def __init__(self, folder: Path) -> None:
        lock = folder / "aitrail.lock"
        common = ["lambda", "--destinations", "splunk", "--arch", "x86_64", "--lock", str(lock)]
        self.first, self.second = folder / "first.zip", folder / "second.zip"
        self.said = json.loads(run(*common, "--out", str(self.first), "--json"))
        self.text = run(*common, "--out", str(self.second))
        self.lock = lock
        self.unpacked = folder / "task"
        with zipfile.ZipFile(self.second) as archive:
            archive.extractall(self.unpacked)
        self.runtime = runtime = folder / "runtime"
        runtime.mkdir()
        import botocore

        for name in RUNTIME:
            (runtime / name).symlink_to(Path(botocore.__file__).parents[1] / name)
        self.environment = {"PYTHONPATH": f"{self.unpacked}:{runtime}", "PATH": os.environ["PATH"], "HOME": str(folder),
                            "LAMBDA_TASK_ROOT": str(self.unpacked)}  # fmt: skip

    def python(self, code: str, **more: str) -> str:
        """Run code in the package, with the Python that it was made for."""
        done = subprocess.run(
            [tree.interpreter("3.13"), "-B", "-P", "-c", code],
            env={**self.environment, **more}, capture_output=True, text=True, cwd="/", timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    assert tree.interpreter("3.13"), "these tests need a Python 3.13 (python3.13 in PATH, or pyenv's)"
    return Built(tmp_path_factory.mktemp("package"))


@pytest.fixture
def place() -> Iterator[Place]:
    one = Place()
    yield one
    one.close()


# --- the package


def test_same_bytes_twice(built: Built) -> None:
    assert built.first.read_bytes() == built.second.read_bytes()
    digest = hashlib.sha256(built.first.read_bytes()).hexdigest()
    assert built.said["sha256"] == digest
    assert built.first.with_name("first.zip.sha256").read_text() == f"{digest}  first.zip\n"
    assert (
        built.first.with_name("first.zip.cdx.json").read_bytes()
        == built.second.with_name("second.zip.cdx.json").read_bytes()
    )


def test_small_and_without_what_is_not_needed(built: Built) -> None:
    assert built.said["bytes"] <= SMALL
    with zipfile.ZipFile(built.first) as archive:
        names = archive.namelist()
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    tops = {name.partition("/")[0] for name in names}
    unwanted = {"boto3", "botocore", "duckdb", "rich", "click", "cryptography", "elasticsearch", "azure", "pip", "moto"}
    assert not tops & unwanted
    assert not [name for name in names if "/tests/" in name or name.endswith((".pyi", ".c", "RECORD"))]
    assert "aitrail/_content/patterns/lexicon.toml" in names
    assert "aitrail/normalize/tables/apim.toml" in names
    folders = {name.split("/")[1] for name in names if name.startswith("aitrail/")}
    assert not folders & {"compiler", "demo", "testing", "web", "respond", "detection"}
    assert not [name for name in names if name.startswith("aitrail/runtime/cli")]


def test_manifest_names_every_file(built: Built) -> None:
    lines = (built.unpacked / MANIFEST).read_text().splitlines()
    for line in lines:
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((built.unpacked / name).read_bytes()).hexdigest() == digest
    with zipfile.ZipFile(built.first) as archive:
        assert len(archive.namelist()) == len(lines) + 1


def test_sbom_is_valid_and_names_every_wheel(built: Built) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (built.unpacked / SBOM).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document: dict[str, Any] = json.loads(text)
    assert {one["name"]: one["version"] for one in document["components"]} == built.said["distributions"]
    locked = {line.split()[0]: line.rpartition(":")[2] for line in built.lock.read_text().splitlines()[1:]}
    assert locked == {f"{one['name']}=={one['version']}": one["hashes"][0]["content"] for one in document["components"]}
    assert all(one.get("licenses") for one in document["components"])


def test_import_is_quick_and_needs_nothing_else(built: Built) -> None:
    """CPU milliseconds of a cold import, without AWS's client library, which the runtime has; the best of three."""
    code = (
        "import botocore.config, botocore.credentials, botocore.exceptions, botocore.loaders, botocore.session\n"
        "import time, sys, json; began = time.process_time(); import aitrail.runtime.aws_lambda\n"
        "spent = (time.process_time() - began) * 1e3\n"
        "import aitrail.destinations.splunk, aitrail.sources.cloudtrail_lookup, aitrail.sources.cloudwatch_logs\n"
        "files = [str(getattr(one, '__file__', None) or '') for one in list(sys.modules.values())]\n"
        "print(json.dumps([spent, sorted(sys.modules), files, sys.base_prefix]))"
    )
    found = [json.loads(built.python(code)) for _ in range(3)]
    assert min(one[0] for one in found) <= QUICK_MS
    assert not {"duckdb", "click", "rich", "cryptography", "aitrail.store.segments"} & set(found[0][1])
    places = (str(built.unpacked), str(built.runtime), found[0][3])
    assert [name for name in found[0][2] if name and not name.startswith(places)] == []
    assert any("__pycache__" in str(path) for path in (built.unpacked / "aitrail").rglob("*.cpython-313.pyc"))


def test_it_runs(built: Built, place: Place) -> None:
    """An object of a queue goes through the unpacked package to the destination."""
    event = queue_event([("m-1", place.objects.told(place.objects.log(5)), "h")])
    code = (
        "import json, os\nfrom aitrail.runtime.aws_lambda import handler\n"
        "class Context:\n    aws_request_id = 'r'; function_name = 'f'\n"
        "    def get_remaining_time_in_millis(self): return 60000\n"
        "print(json.dumps(handler(json.loads(os.environ['EVENT']), Context())))"
    )
    out = built.python(code, EVENT=json.dumps(event), **place.environment())
    assert json.loads(out.splitlines()[-1]) == {"batchItemFailures": []}
    assert place.arrived() == place.objects.expected


# --- what is needed


@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("destination", list(DESTINATIONS))
def test_closure_of_every_destination(target: str, destination: str) -> None:
    """Everything that is imported has a distribution, and what it is for is in it."""
    planned = plan(choose(target, (), (destination,), None, arch="arm64", python="3.13"), Options())
    asked = {wheels.normal(one.split(">")[0].split("<")[0]) for one in planned.requirements}
    assert {"msgspec", "google-re2", "python-stdnum"} <= asked
    expected = {"elastic": "elasticsearch", "kafka": "confluent-kafka", "lake": "duckdb"}
    assert {name for name in expected.values() if name in asked} == {
        expected[one] for one in [destination] if one in expected
    }
    assert ("boto3" in planned.provided) == (target == "lambda")
    assert DESTINATIONS[destination].module in planned.needed.modules


@pytest.mark.parametrize("source", list(SOURCES))
def test_closure_of_every_source(source: str) -> None:
    found = closure.closure([SOURCES[source].module])
    assert found.imports.keys() <= set(closure.DISTRIBUTIONS.values())
    assert all(closure.path_of(one) is not None for one in found.modules)


def test_unknown_import_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no distribution is known that has somebody"):
        closure.distribution_of("somebody.elses", "here")


def test_licences_in_words() -> None:
    one = wheels.Wheel("x", "1", "0" * 64, Path("x-1-py3-none-any.whl"), "Some Licence, Version 2")
    choice = choose("lambda", (), ("splunk",), None, arch="arm64", python="3.13")
    found = json.loads(sbom.document(choice, [one], "0" * 64, []))
    assert found["components"][0]["licenses"] == [{"license": {"name": "Some Licence, Version 2"}}]


@pytest.mark.parametrize(
    ("name", "place", "needed"),
    [
        ("botocore", "botocore/docs/docstring.py", True),
        ("botocore", "botocore/data/dynamodb/2012-08-10/service-2.json.gz", True),
        ("botocore", "botocore/data/endpoints.json", True),
        ("botocore", "botocore/data/ec2/2016-11-15/service-2.json.gz", False),
        ("zstandard", "zstandard/_cffi.cpython-313-x86_64-linux-gnu.so", False),
        ("zstandard", "zstandard/backend_c.cpython-313-x86_64-linux-gnu.so", True),
        ("x", "x/tests/test_x.py", False),
        ("x", "docs/index.rst", False),
        ("x", "x-1.dist-info/licenses/LICENSE", True),
        ("x", "x-1.dist-info/RECORD", False),
        ("x", "x/__pycache__/y.cpython-313.pyc", False),
        ("x", "x/y.pyi", False),
    ],
)
def test_what_of_a_wheel_is_needed(name: str, place: str, needed: bool) -> None:
    assert tree._is_needed(name, place) is needed


# --- the command


def test_dry_run_says_what_it_would_hold(tmp_path: Path) -> None:
    said = run("lambda", "--destinations", "elastic", "--dry-run")
    assert "elasticsearch" in said
    assert "Nothing was fetched" in said
    found = json.loads(run("function", "--destinations", "splunk", "--dry-run", "--json"))
    assert {"function_app.py", "host.json"} <= set(found["files"])


def test_configuration_goes_into_it(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("user,department\n")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "own.toml").write_text("")
    config = tmp_path / "aitrail.toml"
    config.write_text(
        '[directory]\nfile = "people.csv"\n[tenants.default]\nkey = "aws-sm:key"\n'
        '[sources.gateway]\ntype = "openai_audit"\ntoken = "aws-sm:x"\nmap = "maps/own.toml"\n'
        '[destinations.out]\ntype = "syslog"\nhost = "siem.example.com"\n'
    )
    found = json.loads(run("lambda", "--config", str(config), "--dry-run", "--json"))
    assert found["files"] == ["aitrail.toml", "maps/own.toml", "people.csv"]
    assert (found["sources"], found["destinations"]) == (["openai_audit"], ["syslog"])
    config.write_text(config.read_text().replace("people.csv", "../people.csv"))
    (tmp_path.parent / "people.csv").write_text("")
    with pytest.raises(ConfigError, match="outside the configuration's folder"):
        run("lambda", "--config", str(config), "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["lambda"], "not said where events go"),
        (["lambda", "--destinations", "splnk"], "no destination type 'splnk'"),
        (["lambda", "--destinations", "splunk", "--sources", "event_hubs"], "no source type 'event_hubs'"),
        (["function", "--destinations", "splunk", "--sources", "s3_sqs"], "no source type 's3_sqs'"),
        (["lambda", "--destinations", "splunk", "--interpreter", sys.executable, "--python", "3.99",
          "--wheels", "/nonexistent"], "pip download"),
    ],
)  # fmt: skip
def test_errors_teach(arguments: list[str], match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match) as error:
        CliRunner().invoke(cli, ["package", *arguments, "--out", str(tmp_path / "x.zip")], catch_exceptions=False)
    assert error.value.hint
    assert not (tmp_path / "x.zip").exists()


def test_a_lock_of_another_package_is_refused(built: Built, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("\n".join(line for line in built.lock.read_text().splitlines() if "filelock" in line) + "\n")
    with pytest.raises(ConfigError, match=r"the lock file lacks .*msgspec"):
        run(
            "lambda",
            "--destinations",
            "splunk",
            "--arch",
            "x86_64",
            "--lock",
            str(lock),
            "--out",
            str(tmp_path / "x.zip"),
        )
