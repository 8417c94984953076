"""The pack's installer against servers that note what they are asked."""

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aitrail.compiler.emit import kibana
from aitrail.compiler.emit.packs import source_tree

PACK = (source_tree() or Path()) / kibana.FOLDER
KEY = "QUtJQUlPU0ZPRE5ON0VYQU1QTEU="


def installer() -> Any:
    spec = importlib.util.spec_from_file_location("aitrail_elastic_install", PACK / "install.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Asked:
    """What a server was asked: method, path, body; ``refuse`` maps a part of a path to a status and an answer."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.refuse: dict[str, tuple[int, Any]] = {}
        self.keys: set[str] = set()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Asked, str]]:
    found = Asked()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found.requests.append((self.command, self.path, body))
            found.keys.add(self.headers["Authorization"])
            status, said = next(
                (answer for part, answer in found.refuse.items() if part in self.path and self.command != "PUT"),
                (200, {"success": True, "successCount": 9, "success_count": 9, "errors": []}),
            )
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("ELASTIC_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield found, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_elasticsearch_gets_what_others_need_first(asked: tuple[Asked, str]) -> None:
    found, url = asked
    found.refuse["/_transform/"] = (200, {})
    assert installer().main(["--elasticsearch", url, "--ilm"]) == 0
    paths = [path for _, path, _ in found.requests]
    wanted = {
        "/" + path.relative_to(PACK / "elasticsearch").as_posix().removesuffix(".json")
        for path in (PACK / "elasticsearch").rglob("*.json")
    }
    assert set(paths) == {path for path in wanted if not path.startswith("/_transform")}
    for path in wanted:
        if path.startswith("/_index_template"):
            body = json.loads((PACK / f"elasticsearch{path}.json").read_text(encoding="utf-8"))
            for name in body.get("composed_of", ()):
                component = f"/_component_template/{name}"
                assert component not in paths or paths.index(component) < paths.index(path)
    assert paths.index("/_ingest/pipeline/logs-ai_audit.access@enrichment") < paths.index(
        "/_component_template/logs-ai_audit.access@enrichment"
    )
    assert found.keys == {f"ApiKey {KEY}"}
    assert all(json.loads(body) for _, _, body in found.requests)


def test_the_policy_is_left_out_unless_it_is_asked_for(asked: tuple[Asked, str]) -> None:
    found, url = asked
    assert installer().main(["--elasticsearch", url]) == 0
    assert not [path for _, path, _ in found.requests if "_ilm" in path or "@lifecycle" in path]


def test_transforms_are_made_once(asked: tuple[Asked, str]) -> None:
    found, url = asked
    assert installer().main(["--elasticsearch", url, "--transforms"]) == 0
    assert not [one for one in found.requests if one[0] == "POST"]
    found.requests.clear()
    found.refuse["/_transform/ai_audit-user-daily"] = (404, {"error": "x"})
    assert installer().main(["--elasticsearch", url, "--transforms"]) == 1
    # A start that is refused is said; before it the transform was put.
    assert ("PUT", "/_transform/ai_audit-user-daily?defer_validation=true") in [one[:2] for one in found.requests]


def test_kibana_gets_the_three_files(asked: tuple[Asked, str], capsys: pytest.CaptureFixture[str]) -> None:
    found, url = asked
    assert installer().main(["--kibana", url + "/", "--space", "soc"]) == 0
    assert [path for _, path, _ in found.requests] == [
        "/s/soc/api/saved_objects/_import?overwrite=true",
        "/s/soc/api/saved_objects/_import?overwrite=true",
        "/s/soc/api/detection_engine/rules/_import?overwrite=false",
    ]
    for (_, _, body), name in zip(found.requests, ("dashboards", "hunts", "rules"), strict=True):
        assert (PACK / "import" / f"{name}.ndjson").read_bytes() in body
    assert KEY not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([{"error": {"status_code": 409, "message": "exists"}}], 0),
        ([{"error": {"status_code": 400, "message": "bad"}}], 1),
    ],
)
def test_rules_that_are_there_are_no_failure(asked: tuple[Asked, str], errors: list[Any], code: int) -> None:
    found, url = asked
    found.refuse["detection_engine"] = (200, {"success_count": 0, "errors": errors})
    assert installer().main(["--kibana", url]) == code


def test_what_a_server_says_is_passed_on_without_the_key(
    asked: tuple[Asked, str], capsys: pytest.CaptureFixture[str]
) -> None:
    found, url = asked
    found.refuse["saved_objects"] = (403, {"message": "no privilege"})
    assert installer().main(["--kibana", url]) == 1
    said = capsys.readouterr().err
    assert "403" in said
    assert "no privilege" in said
    assert KEY not in said


def test_without_a_key_or_a_place_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELASTIC_API_KEY", raising=False)
    with pytest.raises(SystemExit):
        installer().main(["--kibana", "http://127.0.0.1:1"])
    monkeypatch.setenv("ELASTIC_API_KEY", KEY)
    with pytest.raises(SystemExit):
        installer().main([])
    assert installer().main(["--kibana", "ftp://example.com"]) == 1
