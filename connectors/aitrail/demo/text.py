"""Prompts and answers: conversations of ``texts/*.toml`` with their slots filled from a random stream."""

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from msgspec import Struct

from aitrail.demo.rng import Rng

_SLOT = re.compile(r"\{([a-z0-9_]+)\}")
_GROUPS = {"tickets": "services", "kyc": "services", "credit": "services", "chunks": "services"}

Template = tuple[tuple[str, str], ...]  # (text before a slot, name of the slot), the last one with an empty name


class Talk(Struct, frozen=True, gc=False):
    """One conversation: what the user says and what comes back, turn by turn."""

    turns: tuple[tuple[Template, Template], ...]


class Group(Struct, frozen=True, gc=False):
    """The conversations of one kind of application, with what fills their slots."""

    talks: tuple[Talk, ...]
    slots: dict[str, tuple[str, ...]]
    sentences: tuple[str, ...]
    advice: tuple[str, ...]


@cache
def group(name: str) -> Group:
    """Load the conversations called ``name``."""
    text = (files("aitrail.demo") / "texts" / f"{_GROUPS.get(name, name)}.toml").read_text(encoding="utf-8")
    tree: dict[str, Any] = tomllib.loads(text)
    slots = {key: tuple(values) for key, values in tree["slots"].items()}
    known = {*slots, "doc", "note", "amount", "ref", "iban4"}
    key = name if name in _GROUPS else "talk"
    return Group(
        talks=tuple(_talk(entry["turns"], known) for entry in tree[key]),
        slots=slots,
        sentences=tuple(tree["pool"]["sentences"]),
        advice=tuple(tree["pool"]["advice"]),
    )


def _talk(turns: list[str], known: set[str]) -> Talk:
    parsed = [_template(turn, known) for turn in turns]
    return Talk(tuple(zip(parsed[0::2], parsed[1::2], strict=True)))


def _template(text: str, known: set[str]) -> Template:
    parts: list[tuple[str, str]] = []
    before = ""
    position = 0
    for found in _SLOT.finditer(text):
        before += text[position : found.start()]
        position = found.end()
        if found[1] in known:
            parts.append((before, found[1]))
            before = ""
        else:
            before += found[0]  # braces of a code or JSON example
    parts.append((before + text[position:], ""))
    return tuple(parts)


def conversation(rng: Rng, name: str, *, turns: int = 99) -> list[tuple[str, str]]:
    """Make one conversation of kind ``name`` with at most ``turns`` turns: (prompt, answer) pairs.

    A slot keeps its value through the whole conversation; free text ({doc}, {note}) is new every time.
    """
    source = group(name)
    talk = source.talks[int(rng.random() * len(source.talks))]
    values: dict[str, str] = {}
    return [
        (_fill(rng, prompt, values, source), _fill(rng, answer, values, source))
        for prompt, answer in talk.turns[:turns]
    ]


def _fill(rng: Rng, template: Template, values: dict[str, str], source: Group) -> str:
    if len(template) == 1:
        return template[0][0]
    out: list[str] = []
    for before, slot in template:
        out.append(before)
        if slot == "doc":
            out.append(_run(rng, source.sentences, 2, 9))
        elif slot == "note":
            out.append(_run(rng, source.advice, 1, 4))
        elif slot:
            value = values.get(slot)
            if value is None:
                value = values[slot] = _value(rng, slot, source)
            out.append(value)
    return "".join(out)


def _run(rng: Rng, sentences: tuple[str, ...], low: int, high: int) -> str:
    """Some different sentences in a row: a random walk with a step that meets every sentence once."""
    size = len(sentences)
    count = min(size, low + int(rng.random() * (high - low + 1)))
    at = int(rng.random() * size)
    return " ".join([sentences[(at + 5 * i if size % 5 else at + 3 * i) % size] for i in range(count)])


def _value(rng: Rng, slot: str, source: Group) -> str:
    if slot == "amount":
        return str(5 * (1 + rng.below(9) * rng.below(90) + rng.below(30)))
    if slot == "ref":
        return f"EB-{rng.between(100000, 999999)}"
    if slot == "iban4":
        return f"{rng.below(10000):04d}"
    return rng.pick(source.slots[slot])


def document(rng: Rng, name: str, sentences: int) -> str:
    """A long text of ``sentences`` sentences of kind ``name`` (inputs of benchmarks and of long prompts)."""
    pool = group(name).sentences
    at = rng.below(len(pool))
    return " ".join([pool[(at + 7 * i + i // len(pool)) % len(pool)] for i in range(sentences)])


def tokens(text: str) -> int:
    """About how many tokens ``text`` has (four characters each, as for English)."""
    return len(text) // 4 + 1
