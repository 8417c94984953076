"""The add-on as Splunk unpacks it, run by Python 3.13, and what its inputs call: splunkd and an audit-log API."""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from aitrail.runtime.packaging import addon, tree
from aitrail.runtime.packaging.wheels import fetch
from aitrail.testing.certificates import Authority
from aitrail.testing.faults import HttpServer, Reply, Request, reply_json
from aitrail.testing.peer import Behaviour, Script

MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
WAIT_SECONDS = 60.0


def interpreter() -> str:
    found = tree.interpreter(addon.PYTHON)
    assert found, "these tests need a Python 3.13 (python3.13 in PATH, or pyenv's)"
    return found


def unpacked(base: Path) -> Path:
    """The add-on's folder, made once for all workers of a test run; ``wheels`` lies beside it."""
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder, wheels = shared / addon.ADDON, shared / "wheels"
    with FileLock(str(shared / "addon.lock")):
        if not (shared / "addon.done").exists():
            wheels.mkdir(exist_ok=True)
            wanted = addon.asked(sorted(addon.needed().imports))
            lock = addon.SOURCE.with_name(f"{addon.ADDON}-{MACHINE}.lock")
            assert lock.is_file()
            fetch(wanted, wheels, machine=MACHINE, python=addon.PYTHON, glibc=addon.GLIBC, lock=lock)
            for name, data in contents(wheels).items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            (shared / "addon.done").touch()
    return folder


def contents(wheels: Path) -> dict[str, bytes]:
    """The files of the package for this machine, from wheels that are here."""
    return addon.contents(addon.SOURCE, lambda text: None, wheels=str(wheels), machines=(MACHINE,))[0]


def environment(base: Path) -> dict[str, str]:
    """What splunkd's children have: little, and nothing of ours."""
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    return {"PATH": os.defpath, "HOME": str(base), "AITRAIL_CACHE_DIR": str(shared / "patterns")}


class AuditLog:
    """An audit log of an OpenAI organization: newest first, ``after`` goes on behind a record."""

    def __init__(self, authority: Authority | None = None) -> None:
        self.records: list[tuple[str, float]] = []
        self.broken: set[str] = set()
        self.token = "sk-admin-example"
        self.calls = 0
        tls = authority.context("") if authority is not None else None
        self._server = HttpServer(self._answer, Script(frozenset()), is_data=lambda request: False, tls=tls)
        self.url = self._server.url

    def add(self, count: int, label: str = "audit", age: float = 3_600.0) -> list[str]:
        now = time.time()
        names = [f"{label}-{number:05d}" for number in range(count)]
        self.records += [(name, int(now - age) + number) for number, name in enumerate(names)]
        return names

    def close(self) -> None:
        self._server.close()

    def _answer(self, request: Request, behaviour: Behaviour | None) -> Reply:
        self.calls += 1
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return reply_json(401, {"error": {"message": "invalid"}})
        asked = request.query
        low, high = float(asked.get("effective_at[gte]", 0)), float(asked.get("effective_at[lt]", 1 << 40))
        found = sorted((one for one in self.records if low <= one[1] < high), key=lambda one: (-one[1], one[0]))
        names = [name for name, _ in found]
        start = names.index(asked["after"]) + 1 if "after" in asked else 0
        pages = [{**record(*one), **({"type": None} if one[0] in self.broken else {})} for one in found]
        page = found[start : start + int(asked["limit"])]
        last = page[-1][0] if page else ""
        more = start + len(page) < len(found)
        return reply_json(200, {"data": pages[start : start + len(page)], "has_more": more, "last_id": last})


def record(name: str, at: float) -> dict[str, Any]:
    user = {"id": "user-1", "email": "ines.moreau@example.com"}
    session = {"user": user, "ip_address": "203.0.113.9", "user_agent": "Mozilla/5.0"}
    return {
        "id": name, "type": "api_key.created", "effective_at": at, "project": {"id": "proj_1", "name": "Retail"},
        "actor": {"type": "session", "session": session}, "api_key.created": {"id": "key_1", "data": {"scopes": []}},
    }  # fmt: skip


def upstream(events: list[Any]) -> list[str]:
    """The sources' own ids, of what is an access."""
    return [json.loads(one.data)["source_event_id"] for one in events if one.sourcetype == "ai:access:audit"]
