"""Microsoft Sentinel as a destination: rows into a table, through the Logs Ingestion API.

The requests are aitrail's own and not azure-monitor-ingestion's ``upload``: that one cuts batches by a sum that leaves
out separators (so bodies exceed 1 MiB), repeats neither 408, 502, a bare 429 nor a lost connection, and has no
verdicts. Tokens come from azure-identity. An answer 204 is final; Azure suppresses no repeats, so a resend has the same
bytes, and content counts distinct ``EventUid``. A 400 does not say which record is at fault: the request is halved
until that one is found.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal

from isal import igzip

from aitrail.clock import Clock, SystemClock
from aitrail.destinations import _work
from aitrail.destinations._azure_codes import Rule, judge
from aitrail.destinations._azure_token import Credential, Tokens, default_credential
from aitrail.destinations._batching import pack
from aitrail.destinations._sentinel_settings import SentinelSettings
from aitrail.destinations._work import Run, Work
from aitrail.destinations.sentinel_anomalies import ANOMALIES, AnomalyRows
from aitrail.destinations.sentinel_rows import STREAMS, RecordRows, Rows, StreamKind
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.net.http import HttpSender, Response, check_url, clock_trouble
from aitrail.ports import DELIVERED, Ack, EncodedEvent, Limits, Verdict

_CHECK_SECONDS = 10.0
# A request to an auxiliary table spans at most 30 minutes.
_AUXILIARY_SECONDS = 29 * 60.0
# Rows are longer than canonical bytes by TimeGenerated and by column names.
_ROW_OVERHEAD = 120
_OF_ACCESSES = frozenset({"access", "agent_event"})


class SentinelDestination:
    """Sends events to one stream of a data collection rule. Thread-safe.

    Args:
        settings: where and how.
        credential: gives tokens; azure-identity's default unless given.
        name: the destination's name in the outbox.
        clock: for tokens and Retry-After dates.
        sender: how requests are sent; made from the settings unless given.
    """

    dedupe: Literal["by_id", "none"] = "none"

    def __init__(
        self,
        settings: SentinelSettings,
        credential: Credential | None = None,
        *,
        name: str = "sentinel",
        clock: Clock | None = None,
        sender: HttpSender | None = None,
    ) -> None:
        self.name = name
        self._where = where = f"destinations.{name}"
        self._settings = settings
        self._clock = clock or SystemClock()
        endpoint = settings.endpoint(where)
        kind = _kind(settings, where)
        origin = check_url(settings.url, endpoint)
        self._url = origin + settings.path(where, kind.stream_name)
        self._stream = settings.named(kind.stream_name)
        self._rows = _rows(settings, kind)
        self._sender = sender or HttpSender(endpoint, now=self._clock.now)
        self._tokens = Tokens(credential or default_credential(where), settings.scope, self._clock.now, where)
        self._proven = threading.Event()
        self.limits = Limits(
            max_events=settings.batch_events,
            max_batch_bytes=max(
                settings.batch_bytes - _ROW_OVERHEAD * settings.batch_events, settings.batch_bytes // 2
            ),
            max_event_bytes=settings.event_bytes,
        )

    # --- sending

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Send ``batch`` in as few requests as the limits allow.

        Raises:
            ConfigError: the rule or stream is not there, or every record is refused; the message says which.
            AuthError: no token, or the identity lacks the role; the message names it.
            TransientError: Azure takes nothing now; nothing was judged.
        """
        settings = self._settings
        work = Work.of(batch, deadline)
        _work.encode_all(work, self._rows.row, settings.event_bytes, settings.batch_bytes - 2, settings.oversize)
        # A body is [row,row,...]: each row and one byte, and one byte more.
        sizes = [len(line) + 1 for line in work.lines]
        runs: Iterable[Run] = pack(sizes, settings.batch_events, settings.batch_bytes - 1)
        if settings.plan == "auxiliary":
            runs = self._short_spans(work, runs)
        ack = _work.deliver(work, runs, lambda first, behind: self._step(work, first, behind))
        if work.accepted:
            self._proven.set()
        elif _work.all_refused(work) and not self._proven.is_set():
            raise ConfigError(
                f"Azure refuses every record for the stream {self._stream}: its declaration does not fit",
                where=f"{self._where}.stream_name",
                hint="deploy the data collection rule and table of this version of aitrail",
            )
        return ack

    def confirm(self, token: str) -> Verdict:
        """Nothing is ever pending here: 204 is final."""
        del token
        return Verdict("retry", code="unknown_token")

    def close(self) -> None:
        """Give back connections."""
        self._sender.close()

    def _step(self, work: Work, first: int, behind: int) -> list[Run]:
        """Send rows [first, behind) and judge the answer; gives the runs to send instead."""
        response = self._post(b"[" + b",".join(work.lines[first:behind]) + b"]", work.deadline)
        rule = judge(response.status, response.body)
        if rule.action == "taken":
            work.judge_all(first, behind, DELIVERED)
            return []
        if rule.action == "too_large":
            return _work.smaller(work, first, behind, self._rows.row, self._settings.oversize)
        if rule.action == "data":
            return _work.isolate(work, first, behind, "azure_400")
        raise self._failure(response, rule)

    def _post(self, body: bytes, deadline: float) -> Response:
        """Send one request; when the token is refused, once more with a new one, if there is one."""
        packed = igzip.compress(body, 1)
        token = self._tokens.current()
        response = self._sender.request("POST", self._url, deadline=deadline, content=packed, headers=_headers(token))
        if response.status == 401:
            fresh = self._tokens.current(instead_of=token)
            if fresh != token:
                response = self._sender.request(
                    "POST", self._url, deadline=deadline, content=packed, headers=_headers(fresh)
                )
        return response

    def _failure(self, response: Response, rule: Rule) -> AitrailError:
        target = f"data collection rule {self._settings.dcr}, stream {self._stream}"
        message = f"{self._where}: Azure: {rule.meaning} (HTTP {response.status}; {target})"
        if rule.action == "auth":
            return AuthError(message, hint=rule.hint)
        if rule.action == "config":
            # A rule of before these streams were there is no reason to hold up accesses.
            other = "" if self._settings.stream in _OF_ACCESSES else '; or leave them out: streams = ["access"]'
            return ConfigError(message, hint=rule.hint + other)
        return TransientError(
            message,
            retry_after=response.retry_after(self._clock.now()),
            hint="nothing is lost; events wait in the outbox",
        )

    def _short_spans(self, work: Work, runs: Iterable[Run]) -> Iterator[Run]:
        """Cut runs so that ``TimeGenerated`` in each spans less than an auxiliary table allows."""
        for first, behind in runs:
            start = first
            earliest = latest = self._epoch(work, first)
            for line in range(first + 1, behind):
                at = self._epoch(work, line)
                if max(latest, at) - min(earliest, at) > _AUXILIARY_SECONDS:
                    yield start, line
                    start, earliest, latest = line, at, at
                else:
                    earliest, latest = min(earliest, at), max(latest, at)
            yield start, behind

    def _epoch(self, work: Work, line: int) -> float:
        return datetime.fromisoformat(self._rows.time_generated(work.batch[work.places[line]])).timestamp()

    # --- checking

    def check(self) -> list[str]:
        """Ask for a token, and whether rule and stream are there for this identity; sends no row."""
        deadline = time.monotonic() + min(_CHECK_SECONDS, self._settings.request_seconds)
        try:
            # An empty list gets as far as the rule and the role; whether Azure calls it 204 or 400 does not matter.
            token = self._tokens.current()
            headers = {name: text for name, text in _headers(token).items() if name != "Content-Encoding"}
            response = self._sender.request("POST", self._url, deadline=deadline, content=b"[]", headers=headers)
            rule = judge(response.status, response.body)
            if rule.action in ("taken", "data"):
                troubles = clock_trouble(response.headers, self._clock.now(), "the data collection endpoint")
                return [f"{self.name}: {one}" for one in troubles]
            raise self._failure(response, rule)
        except AitrailError as error:
            return [f"{self.name}: {error}{'; ' + error.hint if error.hint else ''}."]


def _kind(settings: SentinelSettings, where: str) -> StreamKind:
    if settings.stream == "finding" and settings.findings == "anomalies":
        return ANOMALIES
    kind = STREAMS.get(settings.stream)
    if kind is None:
        raise ConfigError(
            f"unknown stream {settings.stream!r}", where=f"{where}.stream", hint=f"known: {', '.join(STREAMS)}"
        )
    return kind


def _rows(settings: SentinelSettings, kind: StreamKind) -> Rows | RecordRows | AnomalyRows:
    if kind is ANOMALIES:
        return AnomalyRows()
    if kind.layout is None:
        return RecordRows(settings.stream)
    return Rows(kind.layout, "ingested_at" if settings.time_generated == "ingested" else "timestamp")


def _headers(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Content-Encoding": "gzip"}
