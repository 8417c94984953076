"""Finding secrets, personal and financial data.

The first pass says which expressions can match, RE2 finds the candidates; checksums, entropy, context and the shape of
the surroundings decide. The same spans serve detection and masking, so a finding covers the value and nothing else.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import re2

from aitrail.classify import checks, values
from aitrail.classify.decode import LONG_RUN
from aitrail.classify.engine import compile_set, re2_options
from aitrail.classify.fold import Folded, fold_pattern
from aitrail.classify.patterns import read_toml
from aitrail.classify.rarity import least_digits, least_run
from aitrail.contentdir import content_path
from aitrail.errors import ConfigError

Group = Literal["secret", "pii", "financial"]
_NEAR: Final = 80
_WORD_BYTES: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
# Words before a number that say what it is, and that it is none of ours.
_OTHER_NUMBER: Final = re.compile(
    rb"(?i)(?:invoice|order|ticket|tracking|reference|ref|case|version|build|serial|sku|isbn|issn|doi|commit|sha\d*|md5|uuid|guid|"
    rb"part|model|item|article|batch|lot|po|rfc|port|parcel|shipment|transaction|trace|span|request|session|page|line|revision|rev|inv|"
    rb"checksum|hash|digest|integrity)(?: ?(?:id|no|nr|number|num|code|#))?"
    rb"[ .:=#\"'-]{1,4}(?:is |of |was )?[\"'#]?[a-z]{0,4}-?$"
)


# What a digest is written behind: package locks, subresource integrity, image digests.
_DIGEST_BEFORE: Final = re.compile(rb"(?i)(?:sha(?:1|224|256|384|512)[-:=]|md5[-:=]|integrity[\"': =]{1,6})$")
_DIGITS_GATE: Final = rb"[0-9][ .\-/]?[0-9][ .\-/]?[0-9][ .\-/]?[0-9][ .\-/]?[0-9][ .\-/]?[0-9]"


# Candidates of one text that are checked; see ``Leaks.find``.
MAX_CHECKS: Final = 2_000
# Candidates of one text that are looked at; behind them the rest of the text is one finding of this kind.
MAX_CANDIDATES: Final = 20_000
UNCHECKED: Final = "unchecked_rest"
# No identifier is that long; runs of this length are blanked before identifiers are looked for.
_LONG_RUN: Final = re.compile(rb"[0-9A-Za-z]{36,}")


def _blank(match: re.Match[bytes]) -> bytes:
    return b"." * (match.end() - match.start())


class _Budget:
    """Counts checks and candidates down."""

    def __init__(self, checks: int) -> None:
        self.left = checks
        self._candidates = MAX_CANDIDATES

    def too_many(self) -> bool:
        """Use up one candidate; whether there was none left."""
        self._candidates -= 1
        return self._candidates < 0

    def spent(self) -> bool:
        """Use up one check; whether there was none left."""
        self.left -= 1
        return self.left < 0


class Secret(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One kind of secret; see ``content/patterns/leaks/secrets.toml``."""

    kind: str
    gate: str
    regex: str
    entropy: float = 0.0
    edges: bool = True
    check: Literal["", "assigned", "password", "token", "userinfo"] = ""


class Pii(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One kind of identifier; see ``content/patterns/leaks/pii.toml``."""

    kind: str
    group: Group
    gate: str
    regex: str
    check: str
    strong: bool = False
    context: tuple[str, ...] = ()
    grouped: str = ""


class _SecretFile(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    secret: tuple[Secret, ...]


class _PiiFile(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    pii: tuple[Pii, ...]


class Found(msgspec.Struct, frozen=True, gc=False):
    """A leak at characters ``start`` to ``end`` of the text."""

    kind: str
    group: Group
    start: int
    end: int


def load_secrets(folder: Path | None = None) -> tuple[Secret, ...]:
    """Load the kinds of secrets; raises ``ConfigError`` with file and field."""
    loaded: _SecretFile = _load(folder, "secrets.toml", _SecretFile)
    return loaded.secret


def load_pii(folder: Path | None = None) -> tuple[Pii, ...]:
    """Load the kinds of identifiers; raises ``ConfigError`` with file and field."""
    loaded: _PiiFile = _load(folder, "pii.toml", _PiiFile)
    return loaded.pii


def _load(folder: Path | None, name: str, shape: Any) -> Any:
    path = (folder or content_path("patterns")) / "leaks" / name
    if not path.exists():
        path = content_path("patterns", "leaks", name)
    try:
        return msgspec.convert(read_toml(path), shape)
    except msgspec.ValidationError as fault:
        raise ConfigError(str(fault), where=str(path), hint="see docs/classification.md, pattern files") from None


_LONG_GROUP = re.compile(rb"[ -]([0-9]{12,19})(?![0-9])")


# Kinds without a checksum that numbers of other kinds can be taken for.
_VAGUE: Final = frozenset(("phone_number",))

# What takes everything but digits out of a text.
_NO_DIGITS: Final = bytes(code for code in range(256) if not 48 <= code < 58)


class Leaks:
    """The compiled kinds. Thread-safe. ``gates`` are what the caller's first pass looks for, by number."""

    def __init__(self, folder: Path | None = None, engine: str = "auto") -> None:
        self.secrets = load_secrets(folder)
        self.pii = load_pii(folder)
        kinds: list[Secret | Pii] = [*self.secrets, *self.pii]
        numbered: dict[str, int] = {}
        self._of_gate: list[list[int]] = []
        for index, kind in enumerate(kinds):
            number = numbered.setdefault(kind.gate, len(numbered))
            if number == len(self._of_gate):
                self._of_gate.append([])
            self._of_gate[number].append(index)
        self.gates = tuple(_DIGITS_GATE if gate == "digits" else expression_bytes(gate) for gate in numbered)
        self._digits = numbered.get("digits", -1)
        expressions = [expression_bytes(kind.regex) for kind in kinds]
        self._kinds = kinds
        self._options = re2_options()
        self._expressions = expressions
        self._compiled: list[Any] = [None] * len(kinds)
        # Most kinds of numbers share one gate; which of them have a candidate is asked of one set.
        self._numbers = self._of_gate[self._digits] if self._digits >= 0 else []
        self._number_set = compile_set([expressions[index] for index in self._numbers], engine)
        # A gate is often an everyday word: what the value itself needs, a long run or digits, rules out most texts.
        self._runs = [least_run(expression) >= LONG_RUN for expression in expressions]
        self._least_digits = [least_digits(expression) for expression in expressions]
        self._measured = [isinstance(kind, Pii) and kind.check in checks.LENGTHS for kind in kinds]
        self._validators = [checks.validator(kind.check) if isinstance(kind, Pii) else None for kind in kinds]

    def find(self, folded: Folded, fired: Sequence[int], *, long_run: bool = True) -> tuple[list[Found], bool]:
        """Find all leaks of the kinds whose gates ``fired``, and say whether the checks ran out.

        ``long_run`` says whether the text holds ``LONG_RUN`` printable characters without a space.

        Where findings overlap the stronger group wins. A text with thousands of candidates is not checked to the
        end: the
        candidates that are left count as found, so that masking never hides less than it should.
        """
        found: list[Found] = []
        budget = _Budget(MAX_CHECKS)
        count = len(folded.raw.translate(None, _NO_DIGITS))
        for number in fired:
            data = folded.raw
            indexes = self._of_gate[number]
            if number == self._digits:
                data = _LONG_RUN.sub(_blank, folded.raw)
                indexes = [self._numbers[found] for found in self._number_set.match(data)]
            for index in indexes:
                if self._least_digits[index] > count or (self._runs[index] and not long_run):
                    continue
                found.extend(self._of_kind(index, folded, data, budget))
        return (_without_inner(found) if len(found) > 1 else found), budget.left <= 0

    def _of_kind(self, index: int, folded: Folded, data: bytes, budget: _Budget) -> Iterator[Found]:
        kind = self._kinds[index]
        group: Group = "secret" if isinstance(kind, Secret) else kind.group
        for start, end in self._candidates(index, data):
            if budget.too_many():
                yield Found(UNCHECKED, group, folded.span(start, end)[0], len(folded.text))
                return
            if isinstance(kind, Secret):
                good = end if self._secret(kind, data, start, end, budget) else 0
            else:
                good = self._identifier(index, kind, data, start, end, budget)
            if good:
                yield Found(kind.kind, group, *folded.span(start, good))

    def _candidates(self, index: int, data: bytes) -> Iterator[tuple[int, int]]:
        compiled = self._compiled[index]
        if compiled is None:
            compiled = self._compiled[index] = re2.compile(self._expressions[index], self._options)
        groups = range(1, compiled.groups + 1)
        for match in compiled.finditer(data):
            # The value is the group that matched, or all of it.
            start, end = next((span for group in groups if (span := match.span(group))[0] >= 0), match.span())
            if end > start:
                yield start, end
                if self._measured[index]:
                    # Another number may stand before it ("order 4711 4539…"): a long group is tried by itself, too.
                    for group in _LONG_GROUP.finditer(data, start + 1, end):
                        yield group.span(1)

    @staticmethod
    def _secret(kind: Secret, data: bytes, start: int, end: int, budget: _Budget) -> bool:
        if kind.edges and not _stands_alone(data, start, end):
            return False
        if budget.spent():
            return True
        if _DIGEST_BEFORE.search(data[max(0, start - 16) : start]) is not None:
            return False
        value = data[start:end].decode("latin-1")
        if kind.entropy and values.entropy(value) < kind.entropy:
            return False
        if kind.kind != "private_key" and values.is_placeholder(value):
            return False
        return values.VALUE_CHECKS[kind.check](value)

    def _identifier(self, index: int, kind: Pii, data: bytes, start: int, end: int, budget: _Budget) -> int:
        """Where the identifier that begins at ``start`` ends; 0 when there is none."""
        measure = checks.LENGTHS.get(kind.check)
        if measure is None and (not _stands_alone(data, start, end) or _part_of_more(data, start, end)):
            return 0
        value = data[start:end].decode("latin-1")
        near = data[max(0, start - _NEAR) : end + _NEAR // 2].lower()
        named = any(_has_word(near, word) for word in kind.context)
        if not (kind.strong or named or (kind.grouped and any(char in value for char in kind.grouped))):
            return 0
        if budget.spent():
            return end
        if not named and kind.kind != "email" and _OTHER_NUMBER.search(data[max(0, start - 40) : start]):
            return 0
        if measure is not None:
            end = start + measure(value)
            alone = (
                end > start and _stands_alone(data, start, end) and not _part_of_more(data, start, end, spaced=False)
            )
            return end if alone else 0
        valid = self._validators[index]
        return end if valid is not None and valid(value) else 0


def expression_bytes(gate: str) -> bytes:
    """Letters beyond ASCII become the bytes of their folded UTF-8 form."""
    return b"".join(
        char.encode()
        if char.isascii()
        else b"(?:" + b"".join(b"\\x%02x" % byte for byte in fold_pattern(char).encode()) + b")"
        for char in gate
    )


def _has_word(near: bytes, word: str) -> bool:
    at = near.find(word.encode())
    while at >= 0:
        before = near[at - 1 : at]
        after = near[at + len(word) : at + len(word) + 1]
        if not before.isalpha() and (len(word) > 4 or not after.isalpha()):
            return True
        at = near.find(word.encode(), at + 1)
    return False


def _stands_alone(data: bytes, start: int, end: int) -> bool:
    """Whether no letter or digit touches the value: a longer run has another length than the format says."""
    if (
        start > 0
        and data[start - 1] in _WORD_BYTES
        and (data[start] in _WORD_BYTES or data[start : start + 1] in b"+(")
    ):
        return False
    return not (end < len(data) and data[end] in _WORD_BYTES and data[end - 1] in _WORD_BYTES)


def _part_of_more(data: bytes, start: int, end: int, *, spaced: bool = True) -> bool:
    """Whether a number goes on behind a hyphen, dot or underscore (or space): UUIDs, versions, file names."""
    before = data[start - 2 : start] if start >= 2 else b""
    if before[1:] in (b"-", b".", b"_", b"/", b":", b"=") and before[:1].isalnum() and before[1:] not in (b":", b"="):
        return True
    after = data[end : end + 2]
    if spaced and before[1:] == b" " and before[:1].isdigit() and b" " in data[start:end]:
        return True
    if spaced and after[:1] == b" " and after[1:].isdigit() and b" " in data[start:end]:
        return True
    return after[:1] in (b"-", b"_", b".") and after[1:].isalnum() and not (after[:1] == b"." and after[1:].isalpha())


def _without_inner(found: list[Found]) -> list[Found]:
    """Where findings overlap keep the stronger group, within a group the longer one, and of equals not the vaguest."""
    order = {"secret": 0, "financial": 1, "pii": 2}
    kept: list[Found] = []
    for item in sorted(found, key=lambda one: (one.start, -one.end, order[one.group], one.kind in _VAGUE)):
        if kept and item.start < kept[-1].end:
            last = kept[-1]
            if order[item.group] >= order[last.group] and (
                item.end <= last.end or order[item.group] > order[last.group]
            ):
                continue
            if order[item.group] < order[last.group]:
                kept.pop()
        kept.append(item)
    return kept
