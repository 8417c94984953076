"""``aitrail serve``: receivers, one store, and whatever ships from it, in one process.

Threads: the main one runs the HTTP server, one makes what was posted durable, one brings it from the outbox into the
store, one for each destination ships. With sources, the scheduler has a thread too. All of them write to the one store
that this process holds.
"""

import asyncio
import contextlib
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from msgspec import Struct

from aitrail.config import Config
from aitrail.errors import AitrailError, ConfigError, StoreError, TransientError
from aitrail.normalize.join import Joiner
from aitrail.pipeline import Pipeline
from aitrail.runtime.assemble import STORE, Runtime, open_runtime
from aitrail.runtime.collect import tidy
from aitrail.runtime.metrics import render_metrics
from aitrail.runtime.responding import Responder, make_responder
from aitrail.runtime.status import take
from aitrail.secrets import Secrets
from aitrail.spool.states import SourceState
from aitrail.web.app import App, Receiver
from aitrail.web.auth import Gate
from aitrail.web.body import Limits
from aitrail.web.intake import Committer, PushSource, Stats
from aitrail.web.metrics import render
from aitrail.web.respond import Responses
from aitrail.web.settings import (
    RESPONSE_PATHS,
    ReceiverSettings,
    RespondSettings,
    Served,
    ServeSettings,
    paths_of,
)

# What was taken in is brought into the store at least this often, so that reports are fresh.
_STORE_SECONDS = 5.0
_LOOK_SECONDS = 0.2
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 1024
# Small segments are merged and retention is applied this often.
_TIDY_SECONDS = 600.0


class Listening(Struct, frozen=True):
    """Where a started server can be reached."""

    url: str
    paths: tuple[str, ...]


def serve(
    config: Config,
    settings: Served,
    *,
    ready: Callable[[Listening], None],
    beside: Callable[[Runtime, threading.Event], None] | None = None,
) -> None:
    """Take what is posted until SIGTERM or SIGINT.

    Args:
        config: the whole configuration.
        settings: its checked parts for the server.
        ready: called once the server listens.
        beside: runs in a thread of its own on the same store until the event is set (the scheduled sources).

    Raises:
        ConfigError: a setting or secret is wrong, the address is taken, or a package is missing.
        StoreError: another process writes to the store.
    """
    uvicorn = _uvicorn()
    with open_runtime(config) as runtime:
        crash: list[BaseException] = []
        stop = threading.Event()
        server: Any = None

        def crashed(error: BaseException) -> None:
            crash.append(error)
            stop.set()
            if server is not None:
                server.should_exit = True

        committer = Committer(settings.serve.max_waiting_mb << 20, crashed, runtime.clock.now)
        receivers = [_receiver(runtime, name, one, committer) for name, one in settings.receivers.items()]
        for receiver in receivers:
            receiver.limits = _limits(receiver.settings, settings.serve)
        responses, responder = _responses(runtime, settings.respond)
        app = App(
            receivers,
            committer,
            metrics=lambda: render(receivers, committer) + render_metrics(take(runtime.directory)),
            health=lambda: _health(committer),
            metrics_gate=_metrics_gate(settings.serve, runtime),
            responses=responses,
        )
        server = uvicorn.Server(_server_config(uvicorn, app, config, settings.serve))
        with _socket(config, settings.serve) as listener, _threads(runtime, committer, stop, crashed, beside):
            paths = (*(p for r in receivers for p in paths_of(r.settings)), *(RESPONSE_PATHS if responses else ()))
            ready(Listening(_url(settings.serve, listener), paths))
            _run(server, listener, committer)
            committer.stop(settings.serve.grace_seconds)
        if responder is not None:
            responder.close()
        if crash:
            raise crash[0]
        runtime.courier.drain()
        tidy(runtime)


def _receiver(runtime: Runtime, name: str, settings: ReceiverSettings, committer: Committer) -> Receiver:
    _, key = runtime.ring.active("default")
    source = PushSource(name, key)
    context = runtime.context(settings.tenant, settings.map)
    record_type = "generic_access" if settings.map else settings.record_type
    wait = settings.join_seconds if settings.type == "otlp" else 0.0

    def make(of: PushSource) -> Pipeline:
        return Pipeline(
            of,
            spool=runtime.spool,
            transform=runtime.transform,
            context=context,
            destinations=(STORE, *(shipper.name for shipper in runtime.shippers)),
            clock=runtime.clock,
            record_type=record_type,
            state=SourceState(),
            on_reject=of.refused,
            joiner=Joiner(max_wait=wait),
        )

    committer.add(source, make, wait)
    gate = Gate(name, settings, Secrets(), runtime.clock)
    return Receiver(name, settings, gate, source, Limits(0, 0, 0, 0.0), Stats())


def _responses(runtime: Runtime, settings: RespondSettings) -> tuple[Responses | None, Responder | None]:
    """The response API, where tokens say who may ask."""
    if not settings.tokens:
        return None, None

    def wake() -> None:
        for shipper in runtime.shippers:
            shipper.wake()

    names = (STORE, *(shipper.name for shipper in runtime.shippers))
    responder = make_responder(runtime.config, settings, runtime.spool, names, Secrets(), runtime.clock, wake)
    gate = Gate("respond", ReceiverSettings(tokens=settings.tokens), Secrets(), runtime.clock)
    return Responses(gate, responder), responder


def _limits(receiver: ReceiverSettings, serve: ServeSettings) -> Limits:
    return Limits(receiver.max_body_mb << 20, receiver.max_text_mb << 20, receiver.max_ratio, serve.read_seconds)


def _metrics_gate(serve: ServeSettings, runtime: Runtime) -> Gate | None:
    if not serve.metrics_tokens:
        return None
    return Gate("metrics", ReceiverSettings(tokens=serve.metrics_tokens), Secrets(), runtime.clock)


def _health(committer: Committer) -> str:
    if not committer.alive:
        return "the thread that makes records durable has ended"
    return committer.trouble or committer.paused


# --- the server


def _uvicorn() -> Any:
    try:
        import uvicorn  # noqa: PLC0415  (an extra)
    except ImportError:
        raise ConfigError("aitrail serve needs an HTTP server", hint="pip install 'aitrail[web]'") from None
    return uvicorn


def _server_config(uvicorn: Any, app: App, config: Config, serve: ServeSettings) -> Any:
    from aitrail.web.protocol import timed_protocol  # noqa: PLC0415  (an extra)

    def path(name: str) -> str | None:
        return str(config.resolve(name)) if name else None

    return uvicorn.Config(
        app,
        http=timed_protocol(serve.read_seconds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=serve.max_connections,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(serve.grace_seconds)),
        backlog=_BACKLOG,
        ssl_certfile=path(serve.tls_certificate),
        ssl_keyfile=path(serve.tls_key),
        ssl_ca_certs=path(serve.client_ca),
        ssl_cert_reqs=int(ssl.CERT_REQUIRED if serve.client_ca else ssl.CERT_NONE),
    )


@contextmanager
def _socket(config: Config, serve: ServeSettings) -> Iterator[socket.socket]:
    host = serve.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off: a small answer would wait 40 ms for the peer's ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, serve.port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {serve.host}:{serve.port} ({error.strerror or error})",
                where=config.where("serve.port"),
                hint="choose another port or address, or end the program that has it",
            ) from None
        listener.listen(_BACKLOG)  # from here on nobody is turned away, though answers come a moment later
        yield listener
    finally:
        listener.close()


def _url(serve: ServeSettings, listener: socket.socket) -> str:
    host = f"[{serve.host.strip('[]')}]" if ":" in serve.host else serve.host
    return f"{'https' if serve.tls_certificate else 'http'}://{host}:{listener.getsockname()[1]}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop of uvloop where it is installed: it serves more requests a second."""
    try:
        import uvloop  # noqa: PLC0415  (optional)
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _run(server: Any, listener: socket.socket, committer: Committer) -> None:
    """Run the server until a signal; a second Ctrl-C ends the process at once: what is lost was answered to nobody."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            server.should_exit = True
            committer.hurry()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        server.capture_signals = contextlib.nullcontext  # the handlers above are ours
        await server.serve(sockets=[listener])

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())


# --- beside the server


@contextmanager
def _threads(
    runtime: Runtime,
    committer: Committer,
    stop: threading.Event,
    crashed: Callable[[BaseException], None],
    beside: Callable[[Runtime, threading.Event], None] | None,
) -> Iterator[None]:
    """The committing thread, the one that fills the store, and the scheduled sources."""
    works = [_storing(runtime, committer, stop)]
    if beside is not None:
        works.append(lambda: beside(runtime, stop))
    threads = [threading.Thread(target=_guarded, args=(work, crashed), daemon=True) for work in works]
    committer.start()
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60.0)


def _guarded(work: Callable[[], None], crashed: Callable[[BaseException], None]) -> None:
    try:
        work()
    except BaseException as error:  # noqa: BLE001  (a thread's bug ends the process, as everywhere)
        crashed(error)


def _storing(runtime: Runtime, committer: Committer, stop: threading.Event) -> Callable[[], None]:
    """Bring the outbox into the store, wake the destinations, and watch the outbox's limit."""
    state = _Storing(runtime, committer)

    def work() -> None:
        while not stop.wait(_LOOK_SECONDS):
            try:
                state.look()
            except (TransientError, StoreError) as error:  # the disk: senders are told, and it is tried again
                state.failed(error)

    return work


class _Storing:
    """What the storing thread remembers between two looks."""

    def __init__(self, runtime: Runtime, committer: Committer) -> None:
        self._runtime = runtime
        self._committer = committer
        self._next_drain = 0.0
        self._next_tidy = runtime.clock.monotonic() + _TIDY_SECONDS
        self._commits = -1
        self._said = ""
        self._log = structlog.get_logger("aitrail.serve")

    def look(self) -> None:
        """Do what is due."""
        runtime, now = self._runtime, self._runtime.clock.monotonic()
        paused = runtime.spool.over_cap()
        if bool(paused) != bool(self._committer.paused):
            self._log.warning("the outbox is over its limit; senders get 503" if paused else "the outbox takes again")
        self._committer.paused = paused
        if self._committer.commits != self._commits:
            self._commits = self._committer.commits
            for shipper in runtime.shippers:
                shipper.wake()
            runtime.courier.drain(at_least=runtime.flush_events)
        if now >= self._next_drain:
            runtime.courier.drain()
            self._next_drain = now + _STORE_SECONDS
        if now >= self._next_tidy:
            self._next_tidy = now + _TIDY_SECONDS
            tidy(runtime)
        self._said = ""

    def failed(self, error: AitrailError) -> None:
        """Say it once."""
        if not self._said:
            self._log.warning("the store cannot be filled now; what came in waits", error=str(error))
        self._said = str(error)
