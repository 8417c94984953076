"""Optional judges: a transformer on this machine, or a provider's service. Off unless configured.

A scorer never holds up or stops the flow: it has a time limit, a budget of calls per second and a pause after failures
in a row; one that cannot answer gives no verdict, and the event says so. What it says stands beside the own verdict
(``agreement``) and never replaces it. An answer becomes part of the event before the event is committed, so a record
that is read again after a crash may be asked about again, while of two answers only the committed one ever counts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, Literal, Protocol

import msgspec
from msgspec import Meta, Struct

from aitrail.classify.agreement import Opinion
from aitrail.classify.contract import Text, Verdict

# After so many failures in a row a scorer is left alone for so many seconds.
_FAILURES: Final = 5
_PAUSE_SECONDS: Final = 30.0


class ScorerError(Exception):
    """A scorer could not answer; ``code`` is bounded: timeout, throttled, refused, unreachable, unreadable ..."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Scorer(Protocol):
    """One judge. ``ask`` judges the texts of one call together; it raises only ``ScorerError``.

    Attributes:
        place: where it judges, for people: an endpoint, a guardrail, a directory.
    """

    place: str

    def ask(self, texts: Sequence[Text]) -> Opinion:
        """Judge what users and tools said in this turn (roles ``user`` and ``tool``); blocks at most its time limit."""
        ...

    def check(self) -> list[str]:
        """Say what is wrong with the set-up, one sentence each; empty when all is well. Sends no record's text."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


Ask = Literal["all", "unsure", "suspicious"]


class Common(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every scorer can be told."""

    ask: Annotated[
        Ask,
        Meta(
            description="Which calls it is asked about: `all`; `unsure`: some evidence, but not high; `suspicious`: "
            "those in a tier."
        ),
    ] = "all"
    per_second: Annotated[
        float, Meta(description="Calls per second at most; the others are not asked about.", gt=0)
    ] = 20.0
    timeout_seconds: Annotated[float, Meta(description="How long one call may take.", gt=0, le=60)] = 2.0


class Member(msgspec.Struct):
    """A configured scorer: its name in events, the scorer, what limits it, and whether text leaves this machine."""

    name: str
    scorer: Scorer
    settings: Common
    remote: bool
    tokens: float = 1.0
    filled: float = 0.0
    failures: int = 0
    paused_until: float = 0.0


class Panel:
    """All configured scorers. Not thread-safe.

    Attributes:
        members: the scorers, asked one after the other.

    Args:
        members: the scorers.
        monotonic: the clock of budgets and pauses, in seconds.
    """

    def __init__(self, members: Sequence[Member], monotonic: Callable[[], float]) -> None:
        self.members = list(members)
        self._monotonic = monotonic
        for member in self.members:
            member.filled = monotonic()
            member.tokens = max(1.0, member.settings.per_second)

    def __len__(self) -> int:
        return len(self.members)

    def opinions(
        self, texts: Sequence[Text], masked: Callable[[], Sequence[Text]] | None, verdict: Verdict, *, high: float
    ) -> list[Opinion]:
        """Ask every scorer that is to be asked about this call.

        Args:
            texts: what users and tools said in this turn.
            masked: gives the same without secrets and personal data, which is all that leaves this machine; None when
                the tenant's content mode lets no text out.
            verdict: aitrail's own verdict.
            high: from which score on a text is in the tier ``high``.
        """
        if not texts:
            return []
        found = []
        for member in self.members:
            if not _WANTED[member.settings.ask](verdict, high) or (member.remote and masked is None):
                continue
            found.append(self._ask(member, masked() if member.remote and masked is not None else texts))
        return found

    def _ask(self, member: Member, texts: Sequence[Text]) -> Opinion:
        now = self._monotonic()
        if now < member.paused_until:
            return Opinion(member.name, failure="paused")
        rate = member.settings.per_second
        member.tokens = min(max(1.0, rate), member.tokens + (now - member.filled) * rate)
        member.filled = now
        if member.tokens < 1.0:
            return Opinion(member.name, failure="over_budget")
        member.tokens -= 1.0
        try:
            opinion = member.scorer.ask(texts)
        except ScorerError as error:
            member.failures += 1
            if member.failures >= _FAILURES:
                member.failures, member.paused_until = 0, self._monotonic() + _PAUSE_SECONDS
            return Opinion(member.name, failure=error.code)
        member.failures = 0
        return msgspec.structs.replace(opinion, judge=member.name)

    def close(self) -> None:
        """Close every scorer."""
        for member in self.members:
            member.scorer.close()


_WANTED: Final[Mapping[Ask, Callable[[Verdict, float], bool]]] = {
    "all": lambda verdict, high: True,
    "unsure": lambda verdict, high: 0 < (verdict.injection_score or 0.0) < high,
    "suspicious": lambda verdict, high: bool(verdict.injection_tier),
}


class ScorerKind(Struct, frozen=True):
    """Where a scorer's code is; imported when it is configured.

    Attributes:
        module, scorer, settings: the class, called as ``scorer(settings, secrets)``, and its settings.
        remote: whether text leaves this machine.
        extra: what to install when the import fails.
    """

    module: str
    scorer: str
    settings: str
    remote: bool
    extra: str = ""


SCORERS: Final[Mapping[str, ScorerKind]] = {
    "model": ScorerKind("aitrail.classify.scorer_model", "ModelScorer", "ModelSettings", remote=False, extra="scorer"),
    "azure-prompt-shields": ScorerKind(
        "aitrail.classify.scorer_azure", "PromptShields", "PromptShieldsSettings", remote=True
    ),
    "bedrock-guardrail": ScorerKind(
        "aitrail.classify.scorer_bedrock", "BedrockGuardrail", "BedrockGuardrailSettings", remote=True, extra="aws"
    ),
}
