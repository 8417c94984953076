"""The ``cloudtrail_lookup`` source: CloudTrail's event history (LookupEvents), without any set-up in the account.

Promise: every management event of the last 90 days from the start on is read, late ones up to 24 hours after their
time. Limits (CloudTrail API reference, "LookupEvents"): two calls a second per account and region, 50 events a page,
so 100 events a second is the ceiling, the overlap included; management events only: Bedrock's InvokeModel and Converse
are, SageMaker's InvokeEndpoint is not; one attribute per call, so each of ``event_sources`` is a query of its own.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from aitrail.clock import Clock
from aitrail.ports import Budget, Cursors, RawBatch, SecretResolver, Workload
from aitrail.sources._aws_calls import Aws, Refused, finding, shared_pace
from aitrail.sources._aws_polling import Accounts, Poll, unknown_workload
from aitrail.sources._aws_settings import LookupSettings
from aitrail.sources._aws_times import parse_time
from aitrail.sources._aws_windows import Item, Page, StaleTokenError, Tally, Target

_PAGE = 50
_KEPT_SECONDS = 90 * 86_400.0
_STALE = frozenset({"InvalidNextTokenException", "InvalidNextToken", "ExpiredNextTokenException"})


class LookupSource:
    """Polls LookupEvents; a ``ports.Source`` and ``ports.Ranged``.

    Attributes:
        tally: how many events came, and how many of them again because of the overlap.
    """

    def __init__(
        self,
        settings: LookupSettings,
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
        self._settings = settings
        self._clock = clock
        self._key = key
        self._accounts = Accounts(settings, clock)
        self._poll = Poll(clock, key, parse_time(settings.start, f"sources.{name}.start"), only)
        self.tally: Tally = self._poll.tally

    def ranged(self, start: float, end: float) -> "LookupSource":
        """The same accounts and regions, only the events of [start, end)."""
        return LookupSource(self._settings, name=self.name, clock=self._clock, key=self._key, only=(start, end))

    def survey(self, cursors: Cursors) -> Workload:
        """How many targets there are; what they hold is not known beforehand."""
        del cursors
        return unknown_workload(self._targets())

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Yield what is new, account by account and region by region; raises ``AuthError`` and ``TransientError``."""
        yield from self._poll.fetch(self._targets(), cursors, budget)

    def check(self) -> list[str]:
        """Say which permission is missing: looks up one event per account and region."""
        problems: list[str] = []
        with finding(problems):
            for aws, region in self._accounts.places():
                with finding(problems):
                    self._pages(aws, region, "", 1, self._clock.now() - 900, self._clock.now(), "")
        return problems

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """Look one event up again (90 days)."""
        del end
        return self._poll.reread(self._targets(), origin, position, index)

    def close(self) -> None:
        """Give back connections."""
        self._accounts.close()

    def _targets(self) -> list[Target]:
        return [
            Target(
                f"lookup/{aws.account}/{region}/{service}".rstrip("/"),
                f"cloudtrail-lookup://{aws.account}/{region}/{service}".rstrip("/"),
                partial(self._pages, aws, region, service, _PAGE),
                record_type="cloudtrail",
            )
            for aws, region in self._accounts.places()
            for service in self._settings.event_sources or ("",)
        ]

    def _pages(self, aws: Aws, region: str, service: str, size: int, start: float, end: float, token: str) -> Page:
        """One page of LookupEvents, newest first. Times have seconds: the window is widened to whole ones."""
        more: dict[str, Any] = {"NextToken": token} if token else {}
        if service:
            more["LookupAttributes"] = [{"AttributeKey": "EventSource", "AttributeValue": service}]
        start = max(start, self._clock.now() - _KEPT_SECONDS)
        if start > end:
            return Page([])
        pace = shared_pace(self._clock, self._settings.calls_per_second, "LookupEvents", aws.account, region)
        try:
            answer = aws.call(
                "cloudtrail", region, "lookup_events", f"CloudTrail in {region}", expect=_STALE, pace=pace,
                StartTime=int(start), EndTime=-int(-end // 1), MaxResults=size, **more,
            )  # fmt: skip
        except Refused:
            raise StaleTokenError from None
        items = [
            Item(one["EventId"], one["EventTime"].timestamp(), one["CloudTrailEvent"].encode("utf-8", "surrogatepass"))
            for one in answer.get("Events", [])
            if one.get("CloudTrailEvent")
        ]
        return Page(items, str(answer.get("NextToken") or ""))
