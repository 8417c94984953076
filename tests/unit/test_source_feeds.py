"""Polled feeds against servers that behave as the services do, and misbehave: nothing is lost, nothing comes twice."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from aitrail.config import load
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.normalize.outcome import Context, Normalized
from aitrail.normalize.registry import NORMALIZERS
from aitrail.ports import Budget, RawBatch
from aitrail.registry import make_source
from aitrail.sources._rest import PolledFeed, load_state

NOW = 1_795_421_400.0
HOUR = 3600.0


class Clock:
    def __init__(self) -> None:
        self.time = NOW
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Cursors:
    """Commits at once, or never (a crash)."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def items(self) -> Iterator[tuple[str, bytes]]:
        return iter(self.kept.items())


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Answer = tuple[int, dict[str, str], Any]


class Service:
    """Records of one feed behind the pages of one service; ``faults`` answer instead, one request each."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.records: list[tuple[str, float]] = []
        self.faults: list[Answer | Callable[[str], Answer | None]] = []
        self.requests: list[str] = []
        self.token = "good"
        self.statements: dict[str, list[list[Any]]] = {}

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        self.requests.append(f"{method} {target}")
        if self.faults:
            fault = self.faults.pop(0)
            found = fault(target) if callable(fault) else fault
            if found is not None:
                return found
        sent = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if sent != self.token:
            return 401, {}, {"error": "who?"}
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        return getattr(self, f"_{self.kind}")(parts.path, query, body)

    def _openai_audit(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        low, high = float(query.get("effective_at[gte]", 0)), float(query.get("effective_at[lt]", 9e12))
        found = [(one, int(when)) for one, when in self.records if low <= int(when) < high]
        rows, more = self._newest_first(found, query.get("after", ""), int(query["limit"]))
        data = [{"id": one, "type": "api_key.created", "effective_at": when, "actor": {}} for one, when in rows]
        return 200, {}, {"object": "list", "data": data, "has_more": more, "last_id": rows[-1][0] if rows else None}

    def _anthropic_compliance(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        low, high = query.get("created_at.gte", ""), query.get("created_at.lt", "~")
        found = [(one, when) for one, when in self.records if low <= iso(when) < high]
        rows, more = self._newest_first(found, query.get("after_id", ""), int(query["limit"]))
        data = [
            {"id": one, "created_at": iso(when), "type": "claude_chat_created", "organization_id": "o", "actor": {}}
            for one, when in rows
        ]
        return 200, {}, {"data": data, "has_more": more, "last_id": rows[-1][0] if rows else None}

    def _newest_first(self, found: list[tuple[str, Any]], after: str, limit: int) -> tuple[list[tuple[str, Any]], bool]:
        ordered = sorted(found, key=lambda record: (record[1], record[0]), reverse=True)
        first = next((index + 1 for index, record in enumerate(ordered) if record[0] == after), 0) if after else 0
        return ordered[first : first + limit], first + limit < len(ordered)

    def _cloudflare_ai(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        low, high = query.get("start_date", ""), query.get("end_date", "~")
        size, page = int(query.get("per_page", "50")), int(query.get("page", "1"))
        ordered = sorted((when, one) for one, when in self.records if low <= iso(when) < high)
        rows = ordered[(page - 1) * size : page * size]
        result = [
            {
                "id": one,
                "created_at": iso(when),
                "tokens_in": 1,
                "tokens_out": 1,
                "status_code": 200,
                "provider": "x",
                "model": "y",
            }
            for when, one in rows
        ]
        return 200, {}, {"success": True, "result": result, "result_info": {"page": page, "total_count": len(ordered)}}

    def _databricks_ai(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        if path == "/api/2.0/sql/statements":
            asked = json.loads(body)
            values = {one["name"]: one["value"] for one in asked["parameters"]}
            low, high = values.get("low", ""), values.get("high", "")
            ordered = sorted((when, one) for one, when in self.records if low <= iso(when) < high)
            rows = [[one, iso(when).replace("T", " ")[:-1], "200", "ines@example.com"] for when, one in ordered]
            name = f"st-{len(self.statements)}"
            self.statements[name] = rows
            return 200, {}, {"statement_id": name, "status": {"state": "PENDING"}}
        parts = path.split("/")
        rows = self.statements[parts[5]]
        first = int(parts[-1]) if "chunks" in parts else 0
        size = 7
        columns = [{"name": name} for name in ("databricks_request_id", "request_time", "status_code", "requester")]
        result = {"data_array": rows[first * size : (first + 1) * size]}
        if (first + 1) * size < len(rows):
            result["next_chunk_index"] = first + 1  # type: ignore[assignment]
        if "chunks" in parts:
            return 200, {}, result
        manifest = {"schema": {"columns": columns}, "truncated": len(rows) > 60}
        return (
            200,
            {},
            {"statement_id": parts[5], "status": {"state": "SUCCEEDED"}, "manifest": manifest, "result": result},
        )


KINDS = ("openai_audit", "anthropic_compliance", "cloudflare_ai", "databricks_ai")
OPTIONS = {
    "openai_audit": "page_size = 10",
    "anthropic_compliance": "page_size = 10",
    "cloudflare_ai": 'page_size = 10\naccount_id = "a"\ngateway = "g"',
    "databricks_ai": 'warehouse_id = "w"\ntable = "main.ai.inference"\noverlap_minutes = 15\nwindow_minutes = 60',
}


class Bench:
    """One feed, its service and its committed cursors."""

    def __init__(self, kind: str, folder: Path, port: int, service: Service, more: str = "") -> None:
        self.kind, self.service, self.clock, self.cursors = kind, service, Clock(), Cursors()
        self.taken: Counter[str] = Counter()
        path = folder / "aitrail.toml"
        prefix = "/client/v4" if kind == "cloudflare_ai" else ""
        path.write_text(
            f'[sources.feed]\ntype = "{kind}"\nbase_url = "http://127.0.0.1:{port}{prefix}"\n'
            f'token = "file:{folder}/token"\nstart = "{iso(NOW - 2 * HOUR)}"\n{OPTIONS[kind]}\n{more}\n'
        )
        (folder / "token").write_text("good")
        self.folder = folder
        config = load(path)
        made = make_source("feed", config.sources["feed"], config, self.clock, b"key")
        assert isinstance(made, PolledFeed)
        self.source = made

    def turn(self, crash_after: int | None = None, budget: Budget | None = None) -> list[str]:
        """One turn; commits every batch, up to a crash."""
        found: list[str] = []
        for number, batch in enumerate(self.source.fetch(self.cursors, budget or Budget())):
            if number == crash_after:
                break
            found += self._commit(batch)
        self.taken.update(found)
        return found

    def _commit(self, batch: RawBatch) -> list[str]:
        self.cursors.kept[batch.cursor_key] = batch.cursor
        events = [NORMALIZERS[batch.record_type](record.data, Context()) for record in batch.records]
        assert all(isinstance(outcomes[0], Normalized) for outcomes in events)
        return [outcomes[0].event.source_event_id for outcomes in events]  # type: ignore[union-attr]

    def add(self, count: int, start: float, step: float, prefix: str = "r") -> list[str]:
        names = [f"{prefix}{number:04d}" for number in range(count)]
        self.service.records += [(name, start + number * step) for number, name in enumerate(names)]
        return names


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    service = Service(request.param)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, headers, told = service.answer(self.command, self.path, self.headers, body)
            data = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815  (the name is http.server's)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield Bench(request.param, tmp_path, server.server_address[1], service)
    server.shutdown()
    server.server_close()


every = pytest.mark.parametrize("bench", KINDS, indirect=True)


@every
def test_everything_once(bench: Bench) -> None:
    names = bench.add(95, NOW - 1.5 * HOUR, 50.0)
    assert sorted(bench.turn()) == names
    assert bench.turn() == []
    more = bench.add(12, NOW - 30, 2.0, "s")
    bench.clock.time += 60
    assert sorted(bench.turn()) == more
    assert max(bench.taken.values()) == 1


@every
def test_equal_times_across_pages(bench: Bench) -> None:
    names = bench.add(35, NOW - HOUR, 0.0)
    assert sorted(bench.turn()) == names


@every
def test_what_is_shown_late_and_out_of_order_is_found(bench: Bench) -> None:
    bench.add(20, NOW - 600, 20.0)
    bench.turn()
    late = bench.add(5, NOW - 590, 7.0, "late")  # older than what was read, younger than the overlap
    bench.clock.time += 60
    assert sorted(bench.turn()) == late
    assert max(bench.taken.values()) == 1


@every
def test_a_crash_loses_nothing(bench: Bench) -> None:
    names = bench.add(60, NOW - 1.5 * HOUR, 60.0)
    for crash in (0, 1, 2, 3):
        bench.turn(crash_after=crash)
    bench.turn()
    assert sorted(bench.taken) == names
    assert max(bench.taken.values()) == 1


@every
def test_a_damaged_cursor_starts_anew(bench: Bench) -> None:
    names = bench.add(10, NOW - HOUR, 60.0)
    bench.turn()
    for damaged in (b"", b"\xff\x00", b"\x80", bench.cursors.kept["feed"][:-5]):
        bench.cursors.kept["feed"] = damaged
        assert sorted(bench.turn()) == names


@every
def test_a_small_budget_ends_between_windows(bench: Bench, tmp_path: Path) -> None:
    names = bench.add(40, NOW - 1.9 * HOUR, 150.0)
    port = int(bench.source._api.origin.split(":")[2].split("/")[0])  # type: ignore[attr-defined]
    folder = tmp_path / "small"
    folder.mkdir()
    options = "" if bench.kind == "databricks_ai" else "window_minutes = 30"
    small = Bench(bench.kind, folder, port, bench.service, options)
    turns = 0
    while len(small.taken) < 40:
        small.turn(budget=Budget(records=5))
        turns += 1
        assert turns < 20
    assert turns >= 2
    assert sorted(small.taken) == names


@every
def test_throttled(bench: Bench) -> None:
    names = bench.add(15, NOW - HOUR, 10.0)
    bench.service.faults = [(429, {"Retry-After": "7"}, {}), (503, {}, {}), (500, {}, {})]
    assert sorted(bench.turn()) == names
    assert bench.clock.slept[:3] == [7.0, 2.0, 4.0]


@every
def test_throttled_for_long_ends_the_turn(bench: Bench) -> None:
    bench.service.faults = [(429, {"Retry-After": "200"}, {})]
    with pytest.raises(TransientError) as caught:
        bench.turn()
    assert caught.value.retry_after == 200


@every
def test_a_rotated_secret_is_read_again(bench: Bench) -> None:
    names = bench.add(5, NOW - HOUR, 10.0)
    bench.turn()
    bench.service.token = "new"
    (bench.folder / "token").write_text("new")
    assert bench.turn() == []
    assert sorted(bench.taken) == names


@every
def test_refused(bench: Bench) -> None:
    bench.service.token = "another"
    with pytest.raises(AuthError) as caught:
        bench.turn()
    assert "good" not in f"{caught.value} {caught.value.hint}"
    bench.service.token = "good"
    bench.service.faults = [(403, {}, {})]
    with pytest.raises(AuthError) as caught:
        bench.turn()
    assert "missing: " in caught.value.hint


WORDS = {
    "openai_audit": "api.audit_logs.read",
    "anthropic_compliance": "read:compliance_activities",
    "cloudflare_ai": "AI Gateway: Read",
    "databricks_ai": "SELECT",
}


@every
def test_check_names_the_missing_permission(bench: Bench) -> None:
    assert bench.source.check() == []
    bench.service.faults = [(403, {}, {})]
    (told,) = bench.source.check()
    assert WORDS[bench.kind] in told
    (bench.folder / "token").unlink()
    bench.source._api._caller._token = ""  # type: ignore[attr-defined]
    (told,) = bench.source.check()
    assert "cannot be read" in told


@every
@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"[]", b"", b'{"data": 7, "result": 7, "status": 7}'])
def test_answers_that_are_none(bench: Bench, body: bytes) -> None:
    bench.service.faults = [(200, {}, body)]
    with pytest.raises(TransientError):
        bench.turn()


@pytest.mark.parametrize("bench", ["openai_audit", "anthropic_compliance"], indirect=True)
def test_an_expired_page_starts_the_window_again(bench: Bench) -> None:
    names = bench.add(35, NOW - HOUR, 10.0)
    bench.service.faults = [lambda target: None, lambda target: None, (400, {}, {})]
    assert sorted(bench.turn()) == names
    bench.service.faults = [lambda target: (410, {}, {}) if "after" in target else None] * 50
    bench.cursors.kept.clear()
    with pytest.raises(TransientError, match="expire"):
        bench.turn()


@pytest.mark.parametrize("bench", ["openai_audit", "anthropic_compliance"], indirect=True)
def test_a_page_loop_ends(bench: Bench) -> None:
    record = {
        "id": "x",
        "effective_at": int(NOW - 60),
        "created_at": iso(NOW - 60),
        "type": "t",
        "organization_id": "o",
        "actor": {},
    }
    bench.service.faults = [(200, {}, {"data": [record], "has_more": True, "last_id": "x"})] * 50
    with pytest.raises(TransientError, match="again and again"):
        bench.turn()
    assert len(bench.service.requests) < 10


@pytest.mark.parametrize("bench", ["openai_audit"], indirect=True)
def test_empty_pages_without_end(bench: Bench) -> None:
    bench.service.faults = [(200, {}, {"data": [], "has_more": True, "last_id": f"x{number}"}) for number in range(500)]
    with pytest.raises(TransientError, match="again and again"):
        bench.turn()
    assert len(bench.service.requests) < 150


@pytest.mark.parametrize("bench", ["databricks_ai"], indirect=True)
def test_a_cut_result_halves_the_window(bench: Bench) -> None:
    names = bench.add(200, NOW - 0.9 * HOUR, 15.0)  # up to 200 an hour, 60 are given at once
    assert sorted(bench.turn()) == names
    assert bench.turn() == []


@pytest.mark.parametrize("bench", ["databricks_ai"], indirect=True)
def test_a_statement_that_fails(bench: Bench) -> None:
    ended = {"statement_id": "s", "status": {"state": "FAILED", "error": {"error_code": "PERMISSION_DENIED"}}}
    bench.service.faults = [(200, {}, ended)]
    with pytest.raises(TransientError, match="PERMISSION_DENIED"):
        bench.turn()


@pytest.mark.parametrize("bench", ["cloudflare_ai"], indirect=True)
def test_a_log_that_is_deleted_meanwhile_hides_none(bench: Bench) -> None:
    names = bench.add(60, NOW - HOUR, 10.0)
    asked = 0

    def delete(target: str) -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            del bench.service.records[:8]  # retention takes the oldest

    bench.service.faults = [delete] * 20
    assert sorted(bench.turn()) == names


@every
def test_the_memory_of_ids_is_bounded(bench: Bench) -> None:
    bench.add(50, NOW - 1.9 * HOUR, 60.0)
    bench.turn()
    state = load_state(bench.cursors.kept["feed"])
    assert len(state.seen) < 30  # two overlaps of a quarter of an hour
    assert state.high == NOW


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('base_url = "http://api.example.com"', "in the clear"),
        ('base_url = "https://user:pw@api.example.com"', "credentials"),
        ('base_url = "https://169.254.169.254"', "169.254.169.254 is"),
        ('base_url = "ftp://api.example.com"', "not a valid URL"),
        ('start = "last week"', "no time"),
        ('tokn = "env:X"', "did you mean 'token'"),
        ("page_size = 0", ">= 1"),
    ],
)
def test_wrong_settings(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "aitrail.toml"
    path.write_text(f'[sources.feed]\ntype = "openai_audit"\ntoken = "env:X"\n{line}\n')
    config = load(path)
    with pytest.raises(ConfigError) as caught:
        make_source("feed", config.sources["feed"], config, Clock(), b"key")
    assert words in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("table", ["inference", "a.b", "a.b.c; DROP TABLE x", "a.b.`c`", "a..c"])
def test_a_table_is_three_names(tmp_path: Path, table: str) -> None:
    path = tmp_path / "aitrail.toml"
    path.write_text(
        f'[sources.feed]\ntype = "databricks_ai"\ntoken = "env:X"\nbase_url = "https://x.example.com"\n'
        f'warehouse_id = "w"\ntable = "{table}"\n'
    )
    config = load(path)
    with pytest.raises(ConfigError, match="no table"):
        make_source("feed", config.sources["feed"], config, Clock(), b"key")
