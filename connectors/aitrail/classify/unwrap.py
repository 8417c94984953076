"""What a text says once decoded: the layers that the search for injection sees, for others who search in texts."""

from collections.abc import Iterator
from typing import Final

from aitrail.classify import decode as decoding
from aitrail.classify import hidden
from aitrail.classify.fold import Folded, fold
from aitrail.classify.inject import Injection

_MAX_CHARS: Final = 40_000
_MAX_FORMS: Final = 8


def decoded_forms(injection: Injection, text: str) -> Iterator[tuple[str, bytes]]:
    """Give name and folded bytes of every decoded form of ``text``, two levels deep, within the caps."""
    text = text[:_MAX_CHARS]
    folded = fold(text)
    scanned = injection.gated.scan(folded.low)
    if not scanned and folded.plain:
        return
    queue = [(item.name, fold(item.text)) for item in hidden.hidden_texts(text)]
    queue += _decoded(injection, folded, scanned)
    count = 0
    while queue and count < _MAX_FORMS:
        name, inner = queue.pop(0)
        count += 1
        yield name, inner.low
        if ">" not in name:
            deeper_forms = _decoded(injection, fold(inner.text), injection.gated.scan(inner.low))
            queue += [(f"{name}>{deeper}", more) for deeper, more in deeper_forms]


def _decoded(injection: Injection, folded: Folded, scanned: list[int]) -> Iterator[tuple[str, Folded]]:
    fired = [n for n in injection.gated.triggers(scanned) if n < len(decoding.TRIGGERS)]
    for name, inner, _, _ in injection.decoders.run(folded, fired, scrambled=False):
        yield name, inner
