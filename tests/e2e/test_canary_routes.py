"""Planted texts reach a destination of any kind only as its content mode lets them: the spool holds them in full."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from receivers import MAKE, FileCredential, write

from aitrail.classify.default import DefaultClassifier
from aitrail.clock import SystemClock
from aitrail.config import load
from aitrail.ports import EncodedEvent
from aitrail.registry import make_route
from aitrail.routing.shape import redacting
from aitrail.runtime.shipping import Shipper
from aitrail.secrets import Secrets
from aitrail.spool import Intake, Spool
from aitrail.testing.events import make_event
from aitrail.testing.lake_peer import LakePeer

PROMPT, ANSWER = "CANARY-PROMPT-5d1", "CANARY-ANSWER-9c2"
CARD = "4111 1111 1111 1111"
HASH = "hmac-sha256:k1:" + "ab" * 32


@pytest.fixture(scope="module")
def classifier() -> DefaultClassifier:
    return DefaultClassifier()


@pytest.fixture(scope="module", params=[*MAKE, "lake"])
def receiver(request: pytest.FixtureRequest) -> Iterator[tuple[str, Any]]:
    peer = LakePeer() if request.param == "lake" else MAKE[request.param][0]()
    yield request.param, peer
    peer.close()


def planted(first: int) -> list[EncodedEvent]:
    return [
        make_event(
            number,
            content_mode="full",
            prompt_text=f"{PROMPT} charge {CARD}",
            response_text=f"{ANSWER} done",
            prompt_hash=HASH,
            evidence=("override_instructions|plain|user|0-16",),
        )
        for number in range(first, first + 3)
    ]


@pytest.mark.parametrize("mode", ["none", "hash", "redacted", "full"])
def test_a_destination_gets_no_more_than_its_mode(
    mode: str,
    receiver: tuple[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    classifier: DefaultClassifier,
) -> None:
    kind, peer = receiver
    token = peer.address.get("token_file", "")
    monkeypatch.setattr("aitrail.destinations.sentinel.default_credential", lambda where: FileCredential(token))
    settings = {"directory": peer.address["directory"]} if kind == "lake" else MAKE[kind][1](peer.address)
    config = write(tmp_path / "aitrail.toml", kind, settings | {"content": mode})
    config.write_text('[tenants.default]\ncontent = "full"\n' + config.read_text())
    route = make_route("out", load(config), Secrets(), redacting(lambda: classifier))
    if kind == "elastic":
        route.destination._inner.install()  # type: ignore[attr-defined]  # what `aitrail elastic install` does
    events = planted(["none", "hash", "redacted", "full"].index(mode) * 100)
    with Spool.open(tmp_path / "store", SystemClock()) as spool:
        spool.commit(Intake("s", ["out"], events, {}))
        shipper = Shipper(spool, route.destination, SystemClock())
        deadline = time.monotonic() + 30
        while spool.backlog("out").events and time.monotonic() < deadline:
            shipper.once() or time.sleep(0.02)
        assert spool.backlog("out").events == 0, shipper.courier.state.last_error
        assert spool.deadletters() == []
    route.destination.close()
    for event in events:
        [body] = peer.bodies(event.event_id)
        text = json.dumps(json.loads(body))
        assert (PROMPT in text, ANSWER in text) == ((mode in ("redacted", "full"),) * 2)
        assert (CARD in text) == (mode == "full")
        assert (HASH in text) == (mode != "none")
        assert ("|0-16" in text) == (mode in ("redacted", "full"))
