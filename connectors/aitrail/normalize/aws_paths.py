"""Paths into CloudTrail's free-form parts: compiled once from the action table, walked per record. Total functions.

A path is dotted and starts in requestParameters, or in ``response.`` (responseElements), ``extra.``
(additionalEventData), ``identity.`` (arn, issuer, user, invoked_by) or ``resource.`` (arn, name). ``[]`` walks a list.
A text with ``{path}`` in it is a template. Texts come from tables, never from records, so what is compiled is kept.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import msgspec

ROOTS: dict[str, int] = {"request": 0, "response": 1, "extra": 2, "identity": 3, "resource": 4}
# One value per root, in the order of ROOTS: decoded JSON, for identity a dict, for resource the record's own list.
Scope = tuple[Any, Any, Any, Any, Any]
Getter = Callable[[Scope], Sequence[Any]]

_MAX_ITEMS = 64  # of one list: nobody passes more roles or outputs, and hostile records stay cheap
_MAX_TEXT = 2048
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_ACCOUNT = re.compile(r"\d{12}", re.ASCII)


class Path(msgspec.Struct, frozen=True):
    """Where a value is: root index, then keys; ``lists[i]`` says that the value of ``keys[i]`` is walked as a list."""

    root: int
    keys: tuple[str, ...]
    lists: tuple[bool, ...]


def parse_path(text: str) -> Path:
    """Compile a dotted path; a path without a root name starts in requestParameters."""
    parts = text.split(".")
    root = 0
    if parts[0] in ROOTS and len(parts) > 1:
        root = ROOTS[parts.pop(0)]
    return Path(root, tuple(part.removesuffix("[]") for part in parts), tuple(part.endswith("[]") for part in parts))


@cache
def compile_getter(text: str) -> Getter:
    """Give a function that reads ``text`` (a path or a template) from a scope: all values found, in order."""
    if "{" in text:
        return _template(text)
    path = parse_path(text)
    root, keys = path.root, path.keys
    if root == ROOTS["resource"]:
        return _resource_name if keys == ("name",) else _resource_arn
    if any(path.lists):
        return lambda scope: _walk(scope[root], path, 0)
    if len(keys) == 1:
        key = keys[0]

        def one(scope: Scope) -> Sequence[Any]:
            holder = scope[root]
            value = holder.get(key) if isinstance(holder, dict) else None
            return () if value is None or value == "" else (value,)

        return one

    def deep(scope: Scope) -> Sequence[Any]:
        value = scope[root]
        for key in keys:
            if not isinstance(value, dict):
                return ()
            value = value.get(key)
        return () if value is None or value == "" else (value,)

    return deep


def _resource_arn(scope: Scope) -> Sequence[str]:
    resources = scope[4]
    arn = resources[0].ARN if resources else None
    return (arn,) if arn else ()


def _resource_name(scope: Scope) -> Sequence[str]:
    return tuple(arn.rpartition("/")[2] for arn in _resource_arn(scope))


def _walk(value: Any, path: Path, at: int) -> list[Any]:
    for index in range(at, len(path.keys)):
        value = value.get(path.keys[index]) if isinstance(value, dict) else None
        if path.lists[index]:
            items = value[:_MAX_ITEMS] if isinstance(value, list) else ()
            return [found for item in items for found in _walk(item, path, index + 1)]
    return [] if value is None or value == "" else [value]


def _template(text: str) -> Getter:
    """Fill ``{path}`` places; nothing when the first one is missing, later ones may be empty (a bucket's prefix)."""
    pieces = _PLACEHOLDER.split(text)
    if len(pieces) in {3, 5} and not pieces[-1] and not any("." in key or "[]" in key for key in pieces[1::2]):
        return _plain_template(*pieces[:-1])
    literals, getters = pieces[0::2], [compile_getter(path) for path in pieces[1::2]]

    def fill(scope: Scope) -> Sequence[Any]:
        out = literals[0]
        for index, getter in enumerate(getters):
            found = getter(scope)
            value = as_text(found[0]) if found else ""
            if not value and index == 0:
                return ()
            out += value + literals[index + 1]
        return (out.rstrip("/"),)

    return fill


def _plain_template(start: str, first: str, between: str = "", second: str = "") -> Getter:
    """``s3://{bucketName}/{key}`` of each object call: one or two plain keys, read without detours."""

    def fill(scope: Scope) -> Sequence[Any]:
        request = scope[0]
        if not isinstance(request, dict):
            return ()
        head = as_text(request.get(first))
        tail = as_text(request.get(second)) if head and second else ""
        return (f"{start}{head}{between}{tail}" if tail else start + head,) if head else ()

    return fill


def as_text(value: Any) -> str:
    """A scalar as text, cut to 2,048 characters; anything else is no identifier and gives an empty text."""
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)[:_MAX_TEXT]
    return ""


def searchable(value: Any) -> str:
    """Lower-case text of a value, for conditions: objects (policies logged as JSON) as their JSON text."""
    if isinstance(value, str):
        return value.lower()
    if isinstance(value, dict | list):
        try:
            return msgspec.json.encode(value).decode().lower()
        except (TypeError, ValueError, RecursionError, msgspec.EncodeError):
            return ""
    return as_text(value).lower()


class Group(msgspec.Struct, frozen=True):
    """The getters of one field, in the table's order.

    ``heads`` are the first keys of their paths when all start in requestParameters: one set operation then tells that
    a call passes none of them, which is the usual case.
    """

    getters: tuple[Getter, ...] = ()
    heads: frozenset[str] | None = None

    def values(self, scope: Scope) -> Iterator[Any]:
        """Every value found, getter by getter."""
        if self.heads is not None:
            request = scope[0]
            if not isinstance(request, dict) or self.heads.isdisjoint(request):
                return
        for getter in self.getters:
            yield from getter(scope)

    def first(self, scope: Scope) -> str:
        """The first scalar value, as text; empty when there is none."""
        if self.heads is not None:
            request = scope[0]
            if not isinstance(request, dict) or self.heads.isdisjoint(request):
                return ""
        for getter in self.getters:
            for value in getter(scope):
                text = as_text(value)
                if text:
                    return text
        return ""

    def every(self, scope: Scope) -> str:
        """Every distinct scalar value, comma-separated in table order: none hides behind an innocent first one."""
        found: dict[str, None] = {}
        for value in self.values(scope):
            text = as_text(value)
            if text:
                found[text] = None
        return ",".join(found)

    def foreign_accounts(self, scope: Scope, own: str) -> str:
        """Accounts other than ``own`` that the values name (ids, ARNs, policies); ``*`` means anybody."""
        found: dict[str, None] = {}
        for value in self.values(scope):
            for account in accounts_in(value):
                if account != own:
                    found[account] = None
        return ",".join(found)


NO_GROUP = Group(heads=frozenset())


def compile_group(texts: Sequence[str]) -> Group:
    """Compile the paths and templates of one field."""
    return _group(tuple(texts)) if texts else NO_GROUP


@cache
def _group(texts: tuple[str, ...]) -> Group:
    paths = [path for text in texts for path in paths_of(text)]
    heads = frozenset(path.keys[0] for path in paths) if all(path.root == 0 for path in paths) else None
    return Group(tuple(compile_getter(text) for text in texts), heads)


@cache
def paths_of(text: str) -> tuple[Path, ...]:
    """The paths that a path or template text reads."""
    return tuple(parse_path(piece) for piece in _PLACEHOLDER.findall(text)) if "{" in text else (parse_path(text),)


def accounts_in(value: Any) -> list[str]:
    """Accounts that one value names: a 12-digit id, an ARN's account, the principals that a policy allows."""
    if isinstance(value, dict):
        return _policy_accounts(value)
    if not isinstance(value, str):
        return []
    if value.startswith("arn:"):
        parts = value.split(":", 5)
        return [parts[4]] if len(parts) > 4 and _ACCOUNT.fullmatch(parts[4]) else []
    if value == "*" or _ACCOUNT.fullmatch(value):
        return [value]
    if value[:1] == "{":
        try:
            policy = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return []
        return _policy_accounts(policy)
    return []


def _policy_accounts(policy: Any) -> list[str]:
    statements = policy.get("Statement", policy.get("statement")) if isinstance(policy, dict) else None
    found: list[str] = []
    for statement in statements if isinstance(statements, list) else [statements]:
        if not isinstance(statement, dict) or statement.get("Effect", "Allow") != "Allow":
            continue
        principal = statement.get("Principal")
        named = principal.get("AWS") if isinstance(principal, dict) else principal
        for item in named[:_MAX_ITEMS] if isinstance(named, list) else [named]:
            found.extend(accounts_in(item) if isinstance(item, str) else ())
        if "NotPrincipal" in statement:
            found.append("*")
    return found
