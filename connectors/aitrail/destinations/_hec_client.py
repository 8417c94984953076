"""The client side of HEC: endpoints in turn, the token, polls and checks. What the bytes hold it does not know.

An endpoint that fails rests for a growing while and the others go on; one alone never rests, because then the outbox
decides when to come back.
"""

import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec
import structlog
from isal import igzip

from aitrail.clock import Clock
from aitrail.destinations._hec_acks import Acks, Token, endpoint_key
from aitrail.destinations._hec_codes import Answer, read_answer
from aitrail.destinations._splunk_settings import SplunkSettings
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.net.http import Endpoint, HttpSender, check_url
from aitrail.ports import SecretResolver

EVENT_PATH = "/services/collector/event"
ACK_PATH = "/services/collector/ack"
HEALTH_PATH = "/services/collector/health"

_FIRST_REST = 1.0
_LONGEST_REST = 60.0
_SLOW_SECONDS = 1.0
_SKEW_SECONDS = 300.0
_CHECK_SECONDS = 10.0

_json = msgspec.json.Encoder().encode


class _Acked(msgspec.Struct, gc=False):
    acks: dict[str, bool] = {}


_read_acks = msgspec.json.Decoder(_Acked).decode


class Node(msgspec.Struct):
    """One endpoint and how it fares: it rests until then after a failure."""

    url: str
    key: str
    rests_until: float = 0.0
    slow_until: float = 0.0
    failures: int = 0
    trouble: str = ""


class HecClient:
    """Sends requests to one or more endpoints. Thread-safe.

    Args:
        settings: where and how.
        secrets: resolves the token when it is needed, and once more when the server refuses it.
        name: the destination's name.
        clock: time, and sleep when the server asks for less.
        sender: how requests are sent; made from the settings unless given.

    Attributes:
        acks: the acknowledgements that are awaited; None without indexer acknowledgement.
    """

    def __init__(
        self, settings: SplunkSettings, secrets: SecretResolver, name: str, clock: Clock, sender: HttpSender | None
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._clock = clock
        self._name = name
        self._where = f"destinations.{name}"
        endpoint = settings.endpoint(self._where)
        self._sender = sender or HttpSender(endpoint, now=clock.now)
        self._nodes = _nodes(settings, endpoint)
        self._lock = threading.Lock()
        self._token = ""
        self._turn = 0
        self._timeouts = 0
        self.acks = Acks(self._poll, clock.monotonic, settings.ack_poll_seconds) if settings.ack else None
        self._log = structlog.get_logger("aitrail.splunk").bind(destination=name)

    def knows(self, endpoint: str) -> bool:
        """Whether the endpoint of a token is still configured."""
        return any(node.key == endpoint for node in self._nodes)

    def close(self) -> None:
        """Give back connections."""
        self._sender.close()

    def post(self, body: bytes, deadline: float) -> tuple[Node, Answer, tuple[str, float]]:
        """Send one request, to the next endpoint when one fails; gives also the channel and the time of sending.

        The answer says taken, data, too_large or - having taken a part - retry; everything else is raised.

        Raises:
            TransientError, AuthError, ConfigError: no endpoint took it; a passing trouble outweighs a lasting one.
        """
        if time.monotonic() >= deadline:
            raise TransientError("no time left to send; the rest follows", retry_after=0.0)
        packed = igzip.compress(body, 1)
        failure: AitrailError | None = None
        for node in self._order():
            self._slow_down(node, deadline)
            channel = self.acks.channel(node.key) if self.acks is not None else ""
            sent = (channel, round(self._clock.now(), 1))
            try:
                answer = self._ask_twice(node, EVENT_PATH, packed, channel, deadline)
            except (TransientError, AuthError, ConfigError) as error:
                self._rest(node, error)
                failure = failure if isinstance(failure, TransientError) else error
                continue
            node.failures, node.rests_until, node.trouble = 0, 0.0, ""
            return node, answer, sent
        if failure is None:
            soonest = min(node.rests_until for node in self._nodes)
            wait = max(0.1, soonest - self._clock.monotonic())
            trouble = next((node.trouble for node in self._nodes if node.trouble), "")
            raise TransientError(f"all endpoints rest after failures: {trouble}", retry_after=wait)
        raise failure

    def _ask_twice(self, node: Node, path: str, packed: bytes, channel: str, deadline: float) -> Answer:
        """Send one request; when the token is refused, read it anew and, if it changed, send once more."""
        used = self._current_token()
        answer = self._ask(node, path, packed, channel, used, deadline)
        if answer.rule.action == "auth":
            fresh = self._current_token(instead_of=used)
            if fresh == used:
                raise AuthError(f"{node.url}: {answer.sentence}", hint=answer.rule.hint)
            answer = self._ask(node, path, packed, channel, fresh, deadline)
            if answer.rule.action == "auth":
                raise AuthError(f"{node.url}: {answer.sentence}", hint=answer.rule.hint)
        return answer

    def _ask(self, node: Node, path: str, packed: bytes, channel: str, token: str, deadline: float) -> Answer:
        response = self._sender.request(
            "POST",
            node.url + path,
            deadline=deadline,
            content=packed,
            headers=_headers(token, channel, packed=bool(packed)),
        )
        answer = read_answer(response)
        action = answer.rule.action
        if action == "config":
            raise ConfigError(f"{node.url}: {answer.sentence}", where=self._where, hint=answer.rule.hint)
        if action == "healthy":
            raise ConfigError(f"{node.url}: answers events as if they were health checks", where=self._where)
        if action == "taken_slow":
            node.slow_until = self._clock.monotonic() + _SLOW_SECONDS
        if action == "rotate" and self.acks is not None:
            self.acks.rotate(node.key)
        if action in ("retry", "rotate") and not (answer.number or 0) > 1:
            raise TransientError(
                f"{node.url}: {answer.sentence}",
                retry_after=response.retry_after(self._clock.now()),
                hint="nothing is lost; events wait in the outbox",
            )
        return answer

    def _order(self) -> list[Node]:
        """The endpoints that do not rest, each time beginning with the next one."""
        with self._lock:
            self._turn += 1
            at = self._turn % len(self._nodes)
        now = self._clock.monotonic()
        awake = [node for node in self._nodes[at:] + self._nodes[:at] if node.rests_until <= now]
        return sorted(awake, key=lambda node: node.slow_until > now)

    def _slow_down(self, node: Node, deadline: float) -> None:
        """Give a server that is near its capacity a pause, while time allows."""
        now = self._clock.monotonic()
        if node.slow_until > now and deadline - now > 2 * _SLOW_SECONDS:
            self._clock.sleep(min(node.slow_until - now, _SLOW_SECONDS))

    def _rest(self, node: Node, error: AitrailError) -> None:
        """Let an endpoint rest after a failure - but the last one awake never: the outbox decides when to come back."""
        node.failures += 1
        node.trouble = str(error)
        if len(self._nodes) > 1:
            asked = getattr(error, "retry_after", None)
            growing = min(_LONGEST_REST, _FIRST_REST * 2 ** min(node.failures - 1, 10))
            node.rests_until = self._clock.monotonic() + max(asked or 0.0, growing)
            self._log.warning("endpoint rests", endpoint=node.url, error=str(error), failures=node.failures)

    def _current_token(self, instead_of: str = "") -> str:
        """The token; resolved anew when it was never, or when the server refused the one given."""
        with self._lock:
            if not self._token or self._token == instead_of:
                self._token = self._secrets.resolve(self._settings.token)
            return self._token

    def _poll(self, endpoint: str, channel: str, acks: list[int]) -> Mapping[int, bool]:
        """Ask for acknowledgements; whatever goes wrong, nothing is acknowledged by it."""
        node = next(node for node in self._nodes if node.key == endpoint)
        deadline = time.monotonic() + min(_CHECK_SECONDS, self._settings.request_seconds)
        try:
            response = self._sender.request(
                "POST",
                f"{node.url}{ACK_PATH}?channel={channel}",
                deadline=deadline,
                content=_json({"acks": acks}),
                headers=_headers(self._current_token(), channel, packed=False),
            )
            told = _read_acks(response.body).acks if response.status == 200 else {}
        except (AitrailError, msgspec.MsgspecError) as error:
            self._log.warning("acknowledgements cannot be read", endpoint=node.url, error=type(error).__name__)
            return {}
        if response.status != 200:
            self._log.warning("acknowledgements cannot be read", endpoint=node.url, status=response.status)
        return {int(one): value for one, value in told.items() if one.isdecimal() and len(one) < 20}

    def give_up(self, acks: Acks, token: Token) -> None:
        """Note that an acknowledgement did not come in time; what is sent from now on takes another channel."""
        acks.forget(token)
        if acks.channel(token.endpoint) == token.channel:
            acks.rotate(token.endpoint)
            with self._lock:
                self._timeouts += 1
            self._log.warning(
                "indexer acknowledgement timed out; events are sent again",
                seconds=self._settings.ack_timeout_seconds,
                timeouts=self._timeouts,
            )

    def check(self) -> list[str]:
        """Ask every endpoint for its health and whether it takes the token; sends no event."""
        wrong: list[str] = []
        for node in self._nodes:
            try:
                wrong += self._check_node(node)
            except AitrailError as error:
                wrong.append(f"{self._name}: {error}{'; ' + error.hint if error.hint else ''}.")
        if self._timeouts:
            wrong.append(
                f"{self._name}: {self._timeouts} times since the start no acknowledgement came in "
                f"{self._settings.ack_timeout_seconds:g} s; look at the indexing queues, and use sticky sessions on a "
                "load balancer."
            )
        return wrong

    def _check_node(self, node: Node) -> list[str]:
        deadline = time.monotonic() + min(_CHECK_SECONDS, self._settings.request_seconds)
        healthy = self._sender.request("GET", node.url + HEALTH_PATH, deadline=deadline)
        answer = read_answer(healthy)
        wrong = []
        if answer.rule.action not in ("healthy", "taken"):
            fix = f"; {answer.rule.hint}" if answer.rule.hint else "; events wait in the outbox until it is better"
            wrong.append(f"{self._name}: {node.url} says {answer.sentence}{fix}.")
        # An empty request gets as far as the token and the channel, and no further: code 5 means both are right.
        channel = self.acks.channel(node.key) if self.acks is not None else ""
        deadline = time.monotonic() + min(_CHECK_SECONDS, self._settings.request_seconds)
        probe = self._ask_twice(node, EVENT_PATH, b"", channel, deadline)
        if probe.rule.action not in ("data", "taken", "taken_slow"):
            wrong.append(f"{self._name}: {node.url} says {probe.sentence}; {probe.rule.hint or 'try again'}.")
        return wrong + self._check_clock(node, healthy.headers.get("date", ""))

    def _check_clock(self, node: Node, date: str) -> list[str]:
        try:
            skew = parsedate_to_datetime(date).timestamp() - self._clock.now()
        except (ValueError, TypeError, OverflowError):
            return []
        if abs(skew) <= _SKEW_SECONDS:
            return []
        return [f"{self._name}: the clock of {node.url} is {skew:+.0f} s off this one; synchronise both (NTP)."]


def _nodes(settings: SplunkSettings, endpoint: Endpoint) -> list[Node]:
    if not settings.urls:
        raise ConfigError(
            "a Splunk destination needs urls", where=f"{endpoint.where}.urls", hint='["https://hec.example.com:8088"]'
        )
    origins = dict.fromkeys(check_url(url, endpoint) for url in settings.urls)
    return [Node(origin, endpoint_key(origin)) for origin in origins]


def _headers(token: str, channel: str, *, packed: bool = True) -> dict[str, str]:
    headers = {"Authorization": f"Splunk {token}", "Content-Type": "application/json"}
    if packed:
        headers["Content-Encoding"] = "gzip"
    if channel:
        headers["X-Splunk-Request-Channel"] = channel
    return headers
