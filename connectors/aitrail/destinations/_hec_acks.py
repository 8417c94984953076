"""Indexer acknowledgement: which requests were sent on which channel, and what polling for them says.

An ackId is deleted at the server once it was read as true, so a "true" is kept here until every event of that request
has asked. A poll that fails proves nothing: the event stays pending, and after the time-out it is sent again. A token
holds all that is needed to go on polling after a restart.
"""

import hashlib
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping

import msgspec

_KEEP_ACKED = 200_000
_POLL_AT_ONCE = 1_000

Poll = Callable[[str, str, list[int]], Mapping[int, bool]]


class Token(msgspec.Struct, frozen=True):
    """What identifies one request: endpoint (short hash of its URL), channel, ackId, epoch seconds of sending."""

    endpoint: str
    channel: str
    ack: int
    sent: float

    def text(self) -> str:
        """Write it as the token of a ``pending`` verdict."""
        return f"{self.endpoint}.{self.channel}.{self.ack}.{self.sent:.1f}"


def read_token(text: str) -> Token | None:
    """Read a token; None when it is not one of ours."""
    parts = text.split(".", 3)
    if len(parts) != 4:
        return None
    try:
        return Token(parts[0], str(uuid.UUID(parts[1])), int(parts[2]), float(parts[3]))
    except ValueError:
        return None


def endpoint_key(url: str) -> str:
    """Name an endpoint in tokens."""
    return hashlib.blake2b(url.encode(), digest_size=5).hexdigest()


class Acks:
    """The acknowledgements that are awaited. Thread-safe.

    Args:
        poll: asks one endpoint about ackIds of one channel; raises nothing, gives what it learned.
        monotonic: seconds, for the polling interval.
        interval: seconds between two polls of one channel.
    """

    def __init__(self, poll: Poll, monotonic: Callable[[], float], interval: float) -> None:
        self._poll = poll
        self._monotonic = monotonic
        self._interval = interval
        self._lock = threading.Lock()
        self._channels: dict[str, str] = {}
        self._open: dict[tuple[str, str], dict[int, float]] = {}
        self._due: dict[tuple[str, str], float] = {}
        self._acked: OrderedDict[tuple[str, str, int], float] = OrderedDict()

    def channel(self, endpoint: str) -> str:
        """Give the channel to send on."""
        with self._lock:
            return self._channels.setdefault(endpoint, str(uuid.uuid4()))

    def rotate(self, endpoint: str) -> None:
        """Take a new channel for what is sent from now on; the old one is still polled."""
        with self._lock:
            self._channels[endpoint] = str(uuid.uuid4())

    def sent(self, token: Token) -> None:
        """Note a request that awaits its acknowledgement.

        A server that restarted counts from the start again: an ackId that comes twice on one channel belongs to the
        newer request, the older one can only time out, and the channel is left.
        """
        key = (token.endpoint, token.channel)
        with self._lock:
            waiting = self._open.setdefault(key, {})
            known = waiting.get(token.ack)
            if known is not None or (*key, token.ack) in self._acked:
                self._acked.pop((*key, token.ack), None)
                self._channels.pop(token.endpoint, None)
            waiting[token.ack] = token.sent

    def is_acked(self, token: Token) -> bool:
        """Whether the request is indexed, polling when it is time to."""
        key = (token.endpoint, token.channel)
        with self._lock:
            if (*key, token.ack) in self._acked:
                return self._is_true(token)
            waiting = self._open.setdefault(key, {})
            # After a restart the tokens are all that is known.
            if waiting.setdefault(token.ack, token.sent) != token.sent:
                return False
            now = self._monotonic()
            if now < self._due.get(key, 0.0):
                return False
            self._due[key] = now + self._interval
            asked = self._choose(waiting, token.ack)
        told = self._poll(token.endpoint, token.channel, list(asked))
        with self._lock:
            for ack, sent in asked.items():
                if told.get(ack) is True and waiting.get(ack) == sent:
                    del waiting[ack]
                    self._acked[(*key, ack)] = sent
            while len(self._acked) > _KEEP_ACKED:
                self._acked.popitem(last=False)
            return self._is_true(token)

    def _is_true(self, token: Token) -> bool:
        return self._acked.get((token.endpoint, token.channel, token.ack)) == token.sent

    def forget(self, token: Token) -> None:
        """Give up on a request that timed out."""
        key = (token.endpoint, token.channel)
        with self._lock:
            waiting = self._open.get(key)
            if waiting is not None:
                if waiting.get(token.ack) == token.sent:
                    del waiting[token.ack]
                if not waiting and self._channels.get(token.endpoint) != token.channel:
                    del self._open[key]
                    self._due.pop(key, None)

    @staticmethod
    def _choose(waiting: Mapping[int, float], ack: int) -> dict[int, float]:
        chosen = {ack: waiting[ack]}
        for one, sent in waiting.items():
            if len(chosen) >= _POLL_AT_ONCE:
                break
            chosen[one] = sent
        return chosen
