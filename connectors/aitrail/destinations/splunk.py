"""Splunk as a destination: events to the HTTP Event Collector (HEC), exactly as sure as Splunk itself can be.

Without indexer acknowledgement "delivered" means that HEC has accepted the request (code 0); with it, that the request
is indexed and replicated as configured. Splunk does not suppress repeats: every event carries its ``event_id`` in the
event and as an indexed field, and a resend has the same bytes, so ``dedup event_id`` is exact. What a refused request
has already taken (``invalid-event-number``) is not sent again.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from aitrail.clock import Clock, SystemClock
from aitrail.destinations import _batching
from aitrail.destinations._batching import OVERSIZE_CODE
from aitrail.destinations._hec_acks import Token, read_token
from aitrail.destinations._hec_client import HecClient, Node
from aitrail.destinations._hec_codes import Answer
from aitrail.destinations._splunk_settings import SplunkSettings
from aitrail.destinations._splunk_text import epoch, event_text
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.net.http import HttpSender
from aitrail.ports import ACCESS, DELIVERED, Ack, EncodedEvent, Limits, SecretResolver, Verdict

_SMALLEST_CUT = 4_096

_json = msgspec.json.Encoder().encode


class _Work(msgspec.Struct):
    """One ``send`` under way: what each event became, and the envelopes of those that are to be sent."""

    batch: Sequence[EncodedEvent]
    deadline: float
    verdicts: list[Verdict | None]
    places: list[int] = []
    lines: list[bytes] = []

    def judge(self, start: int, end: int, verdict: Verdict) -> None:
        """Set the verdict of envelopes [start, end)."""
        for place in self.places[start:end]:
            self.verdicts[place] = verdict


class SplunkDestination:
    """Sends events to one or more HEC endpoints. Thread-safe.

    Args:
        settings: where and how.
        secrets: resolves the token when it is needed, and once more when the server refuses it.
        name: the destination's name in the outbox.
        clock: stamps tokens; sleeps when the server asks for less.
        sender: how requests are sent; made from the settings unless given.
    """

    dedupe: Literal["by_id", "none"] = "none"

    def __init__(
        self,
        settings: SplunkSettings,
        secrets: SecretResolver,
        *,
        name: str = "splunk",
        clock: Clock | None = None,
        sender: HttpSender | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._clock = clock or SystemClock()
        self._client = HecClient(settings, secrets, name, self._clock, sender)
        self._acks = self._client.acks
        self._head, self._tail = _frame(settings)
        self._with_texts = settings.stream == ACCESS
        # One batch of the outbox fills one request: what the envelopes add is taken off.
        overhead = len(self._head) + len(self._tail) + 90
        self.limits = Limits(
            max_events=settings.batch_events,
            max_batch_bytes=max(settings.batch_bytes - settings.batch_events * overhead, settings.batch_bytes // 2),
            max_event_bytes=settings.event_bytes,
        )

    def check(self) -> list[str]:
        """Ask every endpoint for its health and whether it takes the token; sends no event."""
        return self._client.check()

    # --- sending

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Send ``batch`` in as few requests as the limits allow.

        Raises:
            ConfigError: a setting here or at the server is wrong (index, channel, URL, certificate); says which.
            AuthError: the token is refused, also after it was read anew.
            TransientError: no endpoint takes anything now; nothing was judged.
        """
        work = _Work(batch, deadline, [None] * len(batch))
        self._encode(work)
        try:
            sizes = [len(line) for line in work.lines]
            for start, end in _batching.pack(sizes, self._settings.batch_events, self._settings.batch_bytes):
                self._send_run(work, start, end)
        except (TransientError, AuthError, ConfigError) as error:
            if all(verdict is None for verdict in work.verdicts):
                raise
            # Something is judged already: the rest is asked for again, and then the error comes alone.
            later = Verdict("retry", code="interrupted", retry_after=getattr(error, "retry_after", None))
            return Ack([verdict or later for verdict in work.verdicts])
        return Ack([verdict or Verdict("retry", code="interrupted") for verdict in work.verdicts])

    def confirm(self, token: str) -> Verdict:
        """Ask whether the request behind ``token`` is indexed: delivered only when the server says so.

        After ``ack_timeout_seconds`` without an acknowledgement - slow, lost, or asking for it fails - the verdict is
        ``retry``: the events are sent again.
        """
        known = read_token(token)
        if known is None or self._acks is None:
            return Verdict("retry", code="unknown_token")
        if not self._client.knows(known.endpoint):
            return Verdict("retry", code="ack_endpoint_gone")
        if self._acks.is_acked(known):
            return DELIVERED
        if self._clock.now() - known.sent < self._settings.ack_timeout_seconds:
            return Verdict("pending", token=token)
        self._client.give_up(self._acks, known)
        return Verdict("retry", code="ack_timeout", retry_after=0.0)

    def close(self) -> None:
        """Give back connections."""
        self._client.close()

    def _encode(self, work: _Work) -> None:
        """Make the envelopes; an event that cannot be one is judged alone."""
        limit = self._settings.event_bytes
        for place, event in enumerate(work.batch):
            fitting = event
            if len(event.body) > limit:
                cut = _batching.fit(event, limit, self._settings.oversize)
                if cut is None:
                    work.verdicts[place] = Verdict("rejected", code=OVERSIZE_CODE)
                    continue
                fitting = cut
            body = event_text(fitting.body, with_texts=self._with_texts)
            if body is None:
                work.verdicts[place] = Verdict("rejected", code="not_json")
                continue
            work.lines.append(self._envelope(fitting, body))
            work.places.append(place)

    def _envelope(self, event: EncodedEvent, body: bytes) -> bytes:
        one = event.event_id
        # Ids are hexadecimal; anything else is quoted as JSON does it.
        name = b'"' + one.encode() + b'"' if one.isascii() and one.isalnum() else _json(one)
        return b"".join((b'{"time":"', epoch(event.timestamp), self._head, body, self._tail, name, b"}}\n"))

    def _send_run(self, work: _Work, start: int, end: int) -> None:
        """Send envelopes [start, end): halved when too large, and around events that the server refuses."""
        runs = [(start, end)]
        while runs:
            first, behind = runs.pop()
            node, answer, sent = self._client.post(b"".join(work.lines[first:behind]), work.deadline)
            action = answer.rule.action
            if action in ("taken", "taken_slow"):
                work.judge(first, behind, self._accepted(node, answer, sent))
            elif action == "too_large":
                runs += self._smaller(work, first, behind)
            elif action == "data" and behind - first == 1:
                work.judge(first, behind, Verdict("rejected", code=answer.label))
            elif action == "data":
                runs += self._around(work, first, behind, answer.number)
            else:
                self._not_now(work, first, behind, answer)

    def _smaller(self, work: _Work, first: int, behind: int) -> list[tuple[int, int]]:
        """What to send instead of a request that is too large; runs are taken from the end of the list."""
        if behind - first > 1:
            one, two = _batching.halves(first, behind)
            return [two, one]
        place = work.places[first]
        event = work.batch[place]
        room = len(work.lines[first]) // 2
        cut = _batching.fit(event, room, self._settings.oversize) if room >= _SMALLEST_CUT else None
        body = event_text(cut.body, with_texts=self._with_texts) if cut is not None else None
        if cut is None or body is None:
            work.verdicts[place] = Verdict("rejected", code=OVERSIZE_CODE)
            return []
        work.lines[first] = self._envelope(cut, body)
        return [(first, behind)]

    def _around(self, work: _Work, first: int, behind: int, number: int | None) -> list[tuple[int, int]]:
        """What to send after one event of a request was refused.

        Whether ``invalid-event-number`` counts from 0 or from 1 is not certain for every version, so both candidates
        go alone: alone, an answer leaves no doubt. What lies before them was taken. With acknowledgement that is not
        enough (a refused request has no ackId), so those are sent again. Without a number the run is halved.
        """
        if number is None or not 0 <= number <= behind - first:
            one, two = _batching.halves(first, behind)
            return [two, one]
        sure = first + max(0, number - 1)
        runs = [(place, place + 1) for place in (sure, sure + 1) if place < behind]
        rest = runs[-1][1]
        if rest < behind:
            runs.append((rest, behind))
        if sure > first:
            if self._acks is None:
                work.judge(first, sure, DELIVERED)
            else:
                runs.insert(0, (first, sure))
        return runs[::-1]

    def _not_now(self, work: _Work, first: int, behind: int, answer: Answer) -> None:
        """Keep what a busy server took before it stopped; then end this send."""
        taken = max(0, (answer.number or 0) - 1)
        if self._acks is None and taken and taken < behind - first:
            work.judge(first, first + taken, DELIVERED)
        raise TransientError(f"Splunk does not take events now ({answer.sentence})", retry_after=None)

    def _accepted(self, node: Node, answer: Answer, sent: tuple[str, float]) -> Verdict:
        if self._acks is None:
            return DELIVERED
        if answer.ack is None:
            raise ConfigError(
                f"{node.url}: accepted without an ackId, so nothing can be confirmed",
                where=f"destinations.{self.name}.ack",
                hint="enable indexer acknowledgement for the token, or set ack = false (Splunk Cloud has none)",
            )
        token = Token(node.key, sent[0], answer.ack, sent[1])
        self._acks.sent(token)
        return Verdict("pending", token=token.text())


def _frame(settings: SplunkSettings) -> tuple[bytes, bytes]:
    """The parts of an envelope that are always the same: behind the time, and behind the event."""
    named = {"host": settings.host, "source": settings.source, "sourcetype": settings.sent_as}
    if settings.index:
        named["index"] = settings.index
    fields = b"".join(b',"%s":%s' % (key.encode(), _json(value)) for key, value in named.items() if value)
    return b'"' + fields + b',"event":', b',"fields":{"event_id":'
