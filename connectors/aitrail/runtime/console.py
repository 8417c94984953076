"""``aitrail console``: the application joined with what explains events and findings, and the server that runs it."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from aitrail.clock import Clock, SystemClock
from aitrail.config import HealthConfig
from aitrail.errors import ConfigError
from aitrail.event import AccessEvent, ContentMode
from aitrail.health import Vitals, report
from aitrail.privacy.lower import lower
from aitrail.routing.shape import redacting
from aitrail.runtime import present, sessions
from aitrail.runtime.cli.explain import evidence_of, evidence_sentence, to_event, verdict_sentences
from aitrail.runtime.cli.explain_finding import find_finding
from aitrail.runtime.cli.names import atlas_name, owasp_name
from aitrail.runtime.cli.raw_origin import attested, find_origin
from aitrail.runtime.judging import default_classifier
from aitrail.spool import Spool, states
from aitrail.spool.states import DestinationState, SourceState
from aitrail.store.queries import Connection, fetch
from aitrail.streams import Health
from aitrail.web.console.data import Data
from aitrail.web.console.explainer import Explained, Span
from aitrail.web.console.settings import ConsoleSettings

# A client that takes longer to send its headers is given up.
_HEAD_SECONDS = 30.0
_EVENT = "SELECT * FROM events WHERE event_id = $id LIMIT 1"
_EVENTS = "SELECT * FROM events WHERE event_id IN (SELECT unnest($ids)) AND timestamp BETWEEN $first AND $last"
_TIMES = "SELECT min(timestamp), max(timestamp) FROM events WHERE event_id IN (SELECT unnest($ids))"


class StoreExplainer:
    """Explains from the store, as ``aitrail explain`` does, for a viewer who may see content up to ``content``."""

    def __init__(self, content: ContentMode) -> None:
        self._content = content
        self._redact = redacting(default_classifier)

    def event(self, data: Data, event_id: str, *, raw: bool = False) -> Explained | None:
        """The event with this id; None when there is none."""
        found = data.whole(lambda connection: self._look(connection, event_id))
        if found is None:
            return None
        event, together = found
        stored, hidden = event.content_mode, self._lower(event)
        # After the content was lowered: the raw record never shows more than the event does.
        origin = find_origin(event, read=raw)
        origin.integrity = attested(data.directory, origin.place)
        readable = bool(origin.state) and origin.state.startswith("the file is still there")
        if readable:
            origin.state = "the file is still there"
        facts = [(label, str(value)) for label, value in origin.facts() if value != ""]
        return _explained(event, stored, hidden, together, facts, readable=readable, record=origin.record)

    def turns(self, data: Data, event_ids: list[str]) -> list[Explained]:
        """Several events, in the order of the ids."""
        rows = data.whole(lambda connection: _rows(connection, event_ids))
        found = []
        for event_id in event_ids:
            if event_id in rows:
                event = to_event(rows[event_id])
                stored, hidden = event.content_mode, self._lower(event)
                found.append(_explained(event, stored, hidden, (), []))
        return found

    def finding(self, data: Data, finding_id: str) -> dict[str, Any] | None:
        """The finding with this id; None when there is none."""
        return data.read(lambda connection: find_finding(connection, finding_id))

    def tag_name(self, tag: str) -> str:
        """Name of an ATLAS technique or an OWASP entry."""
        return atlas_name(tag) if tag.startswith("aml.") else owasp_name(tag)

    def _look(self, connection: Connection, event_id: str) -> tuple[AccessEvent, tuple[str, ...]] | None:
        rows = fetch(connection, _EVENT, {"id": event_id}).dicts()
        if not rows:
            return None
        event = to_event(rows[0])
        return event, sessions.of_event(connection, event, lambda text: default_classifier().score(text))

    def _lower(self, event: AccessEvent) -> bool:
        return lower(event, self._content, self._redact)


def _rows(connection: Connection, ids: list[str]) -> dict[str, dict[str, Any]]:
    first, last = fetch(connection, _TIMES, {"ids": ids}).rows[0]
    if first is None:
        return {}
    rows = fetch(connection, _EVENTS, {"ids": ids, "first": first, "last": last}).dicts()
    return {row["event_id"]: row for row in rows}


def _explained(
    event: AccessEvent,
    stored: str,
    hidden: bool,
    together: tuple[str, ...],
    origin: list[tuple[str, str]],
    *,
    readable: bool = False,
    record: str = "",
) -> Explained:
    before, after = verdict_sentences(event)
    # What can be shown in the text first, in the order of reading.
    evidence = sorted(evidence_of(event), key=lambda one: (not one.field, one.field, one.start))
    spans = [Span(one.field, one.start, one.end, number) for number, one in enumerate(evidence, 1) if one.field]
    return Explained(
        event=event,
        stored=stored,
        hidden=hidden,
        before=before,
        evidence=[evidence_sentence(one.code).removeprefix("evidence: ") for one in evidence],
        after=after,
        spans=spans,
        together=list(together),
        origin=origin,
        readable=readable,
        record=record,
    )


def make_app(store: Path, settings: ConsoleSettings, clock: Clock | None = None) -> Any:
    """The ASGI application over ``store``.

    Raises:
        ConfigError: a package of the extra ``web`` is missing.
        StoreError: there is no store.
    """
    try:
        from aitrail.web.console.app import build  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ConfigError(f"the console needs {error.name}", hint="pip install 'aitrail[web]'") from None
    clock = clock or SystemClock()
    data = Data(store, settings.content, clock, health=present.of(store))
    return build(data, settings, StoreExplainer(settings.content), clock)


def present_health(store: Path, clock: Clock) -> list[Health]:
    """How the sources and destinations of the store's collector are doing now, as it would report them."""
    with Spool.open(store, clock, write=False) as spool:
        destinations = states.load(spool.database, DestinationState)
        vitals = Vitals(
            collector=socket.gethostname().lower(),
            now=clock.now(),
            late_seconds=HealthConfig().late_seconds,
            sources=states.load(spool.database, SourceState),
            counters=spool.counters(),
            destinations=destinations,
            backlogs={name: spool.backlog(name) for name in destinations},
        )
    return report(vitals)


def serve(app: Any, settings: ConsoleSettings, *, ready: Callable[[str], None]) -> None:
    """Answer requests until SIGTERM or SIGINT; ``ready`` gets the URL once the console listens.

    Raises:
        ConfigError: the address cannot be listened on, or a package is missing.
    """
    try:
        import uvicorn  # noqa: PLC0415  (an extra)
    except ImportError:
        raise ConfigError("the console needs an HTTP server", hint="pip install 'aitrail[web]'") from None
    from aitrail.web.protocol import timed_protocol  # noqa: PLC0415  (an extra)

    config = uvicorn.Config(
        app,
        http=timed_protocol(_HEAD_SECONDS),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=200,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
        ssl_certfile=settings.certificate or None,
        ssl_keyfile=settings.key or None,
    )
    server = uvicorn.Server(config)
    with _listening(settings) as listener:
        asyncio.run(_serving(server, listener, lambda: ready(_url(settings, listener))))


async def _serving(server: Any, listener: socket.socket, ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.should_exit = True
        loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C ends it at once
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    server.capture_signals = nullcontext  # the handlers above are ours
    ready()
    await server.serve(sockets=[listener])


@contextmanager
def _listening(settings: ConsoleSettings) -> Any:
    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, settings.port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error})",
                where="--port",
                hint="choose another port (0 takes a free one), or end the program that has it",
            ) from None
        listener.listen(128)
        yield listener
    finally:
        listener.close()


def _url(settings: ConsoleSettings, listener: socket.socket) -> str:
    host = f"[{settings.host.strip('[]')}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.certificate else 'http'}://{host}:{listener.getsockname()[1]}/"
