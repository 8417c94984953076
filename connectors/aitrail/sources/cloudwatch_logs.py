"""The ``cloudwatch_logs`` source: events of log groups (FilterLogEvents), such as Bedrock's invocation log.

Promise: every event from the start on is read, late ones up to 24 hours after their time. FilterLogEvents gives pages
that may be empty although more follow (CloudWatch Logs API reference); a log group that cannot be read does not stand
in the way of the others. Each event's message is one record. ``cloudwatch_subscription`` reads what a subscription
filter pushes.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from aitrail.clock import Clock
from aitrail.ports import Budget, Cursors, RawBatch, RawRecord, SecretResolver, Workload
from aitrail.sources._aws_calls import Aws, Refused, finding, shared_pace
from aitrail.sources._aws_polling import Accounts, Poll, unknown_workload
from aitrail.sources._aws_settings import CloudWatchSettings
from aitrail.sources._aws_times import parse_time
from aitrail.sources._aws_windows import Item, Page, StaleTokenError, Tally, Target
from aitrail.sources._s3_batches import Notes
from aitrail.sources._s3_bodies import Bodies

_PAGE = 10_000
_MS = 1_000
# A token that has expired is answered like any other wrong parameter.
_STALE = frozenset({"InvalidParameterException", "InvalidNextTokenException", "ExpiredNextTokenException"})


class CloudWatchSource:
    """Polls log groups; a ``ports.Source`` and ``ports.Ranged``.

    Attributes:
        notes: what the last fetch left out, one sentence each.
        tally: how many events came, and how many of them again because of the overlap.
    """

    def __init__(
        self,
        settings: CloudWatchSettings,
        *,
        name: str,
        clock: Clock,
        key: bytes = b"",
        secrets: SecretResolver | None = None,
        only: tuple[float, float] | None = None,
    ) -> None:
        """Describe the source; nothing is called yet. ``only``: one range, once. Raises ``ConfigError``."""
        del secrets  # AWS tools find credentials themselves
        self.name = name
        self.notes: list[str] = []
        self._settings = settings
        self._clock = clock
        self._key = key
        self._accounts = Accounts(settings, clock)
        self._poll = Poll(clock, key, parse_time(settings.start, f"sources.{name}.start"), only)
        self.tally: Tally = self._poll.tally

    def ranged(self, start: float, end: float) -> "CloudWatchSource":
        """The same log groups, only the events of [start, end)."""
        return CloudWatchSource(self._settings, name=self.name, clock=self._clock, key=self._key, only=(start, end))

    def survey(self, cursors: Cursors) -> Workload:
        """How many log groups there are; what they hold is not known beforehand."""
        del cursors
        return unknown_workload(self._targets())

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Yield what is new, group by group; raises ``AuthError`` and ``TransientError``."""
        notes = Notes()
        self.notes = notes.lines

        def resolved(batch: RawBatch) -> RawBatch:
            region = batch.origin.split("/")[3]
            aws = next(one for one in self._accounts.all if one.account == batch.origin.split("/")[2])
            batch.records = self._bodies(aws, region, notes).resolve(list(batch.records))
            return batch

        with_bodies = resolved if self._settings.body_buckets else lambda batch: batch
        yield from self._poll.fetch(self._targets(), cursors, budget, with_bodies)

    def check(self) -> list[str]:
        """Say which permission is missing: asks for one event of each log group."""
        problems: list[str] = []
        with finding(problems):
            for aws, region in self._accounts.places():
                for group in self._settings.log_groups:
                    with finding(problems):
                        self._pages(aws, region, group, 1, self._clock.now() - 60, self._clock.now(), "")
        return problems

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """Fetch one event again; its offloaded bodies are put in again."""
        del end
        data = self._poll.reread(self._targets(), origin, position, index)
        if data is None or not self._settings.body_buckets:
            return data
        account, region = origin.split("/")[2:4]
        for aws in self._accounts.all:
            if aws.account == account:
                return self._bodies(aws, region, Notes()).resolve([RawRecord(data)])[0].data
        return data

    def close(self) -> None:
        """Give back connections."""
        self._accounts.close()

    def _bodies(self, aws: Aws, region: str, notes: Notes) -> Bodies:
        return Bodies(aws, region, self._settings.body_buckets, self._settings.body_bytes, notes)

    def _targets(self) -> list[Target]:
        return [
            Target(
                f"logs/{aws.account}/{region}/{group}",
                f"cloudwatch://{aws.account}/{region}/{group}",
                partial(self._pages, aws, region, group, _PAGE),
                positions_per_second=_MS,
            )
            for aws, region in self._accounts.places()
            for group in self._settings.log_groups
        ]

    def _pages(self, aws: Aws, region: str, group: str, size: int, start: float, end: float, token: str) -> Page:
        """One page of FilterLogEvents."""
        settings = self._settings
        more: dict[str, Any] = {"nextToken": token} if token else {}
        if settings.stream_prefix:
            more["logStreamNamePrefix"] = settings.stream_prefix
        if settings.filter_pattern:
            more["filterPattern"] = settings.filter_pattern
        pace = shared_pace(self._clock, settings.calls_per_second, "FilterLogEvents", aws.account, region)
        try:
            answer = aws.call(
                "logs", region, "filter_log_events", f"arn:aws:logs:{region}:*:log-group:{group}:*",
                expect=_STALE if token else frozenset(), pace=pace, logGroupName=group,
                startTime=int(start * _MS), endTime=-int(-end * _MS // 1), limit=size, **more,
            )  # fmt: skip
        except Refused:
            raise StaleTokenError from None
        items = [
            Item(one["eventId"], one["timestamp"] / _MS, one["message"].encode("utf-8", "surrogatepass"))
            for one in answer.get("events", [])
        ]
        return Page(items, str(answer.get("nextToken") or ""))
