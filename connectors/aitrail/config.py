"""The configuration file: frozen Structs, unknown fields refused, every error names file, line and field.

``aitrail init`` writes a commented file; ``docs/configuration.md`` is generated from these Structs.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from aitrail.errors import ConfigError
from aitrail.event import ContentMode
from aitrail.secrets import check_reference

T = TypeVar("T")


class StoreConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``[store]``: the embedded store."""

    dir: Annotated[str, Meta(description="Directory of the embedded store.")] = "aitrail-store"
    retention_days: Annotated[
        int, Meta(description="Drop whole days older than this many days after each run; 0 keeps everything.", ge=0)
    ] = 0
    compact: Annotated[bool, Meta(description="Merge small segments after each run.")] = True


class SpoolConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``[spool]``: how much may wait for destinations before sources pause. Nothing is dropped at either limit."""

    max_bytes: Annotated[
        int,
        Meta(description="Sources pause while the outbox takes this much disk; 0: until the disk is full.", ge=0),
    ] = 20_000_000_000
    max_age_hours: Annotated[
        float, Meta(description="Sources pause while an event waits for longer than this; 0: no limit.", ge=0)
    ] = 0.0


class HealthConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``[health]``: what the collector says about itself, to destinations that take health events."""

    interval: Annotated[float, Meta(description="Seconds between two reports; 0: none.", ge=0)] = 300.0
    late_seconds: Annotated[
        float, Meta(description="A source or destination is late when its oldest work is older.", gt=0)
    ] = 3_600.0
    collector: Annotated[str, Meta(description="Name of this collector; empty: the machine's.")] = ""


class DetectConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``[detect]``: the detection rules that a running collector runs on its store."""

    interval: Annotated[float, Meta(description="Seconds between two runs of the rules; 0: none.", ge=0)] = 300.0
    hunts: Annotated[bool, Meta(description="Also run the hunting queries: many findings.")] = False
    without: Annotated[tuple[str, ...], Meta(description="Names of rules that are not run.")] = ()
    places: Annotated[
        str,
        Meta(
            description="Where networks are, for impossible_travel: a CSV file with the columns cidr (or network), "
            "latitude, longitude and label, as the free geolocation files have them; empty: the rule is not run."
        ),
    ] = ""


class TenantConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``[tenants.NAME]``: how the content of one tenant is treated."""

    content: Annotated[
        ContentMode,
        Meta(description="none, hash, redacted (secrets and personal data masked), full or sealed (key per subject)."),
    ] = "redacted"
    key: Annotated[
        str,
        Meta(description="Reference to the tenant's hash key, e.g. env:AITRAIL_KEY; empty: one is made in the store."),
    ] = ""


class SourceConfig(Struct, frozen=True):
    """``[sources.NAME]``: where records come from; ``options`` are what its type adds."""

    type: Annotated[str, Meta(description="Kind of source.")] = "file"
    tenant: Annotated[str, Meta(description="Tenant that the records belong to.")] = "default"
    record_type: Annotated[str, Meta(description="Treat every record as this type; empty: detect it per record.")] = ""
    interval: Annotated[float, Meta(description="Seconds between two looks for new data.", gt=0)] = 10.0
    map: Annotated[str, Meta(description="Field map (TOML) of records of type generic_access: `aitrail map`.")] = ""
    options: dict[str, Any] = {}


SOURCE_FIELDS = tuple(name for name in SourceConfig.__struct_fields__ if name != "options")


class MappingConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``[mapping]``: which metadata entries of gateways, request metadata and span attributes carry these facts."""

    user: Annotated[tuple[str, ...], Meta(description="User id.")] = ("user_id", "user.id", "enduser.id", "user")
    department: Annotated[tuple[str, ...], Meta(description="Department.")] = ("department", "team", "business_unit")
    session: Annotated[tuple[str, ...], Meta(description="Conversation or session.")] = (
        "session_id",
        "session.id",
        "conversation_id",
    )
    purpose: Annotated[tuple[str, ...], Meta(description="Purpose of use.")] = ("purpose",)
    ticket: Annotated[tuple[str, ...], Meta(description="Ticket or case.")] = ("ticket", "ticket_id")
    tenant: Annotated[tuple[str, ...], Meta(description="Tenant; empty: the source's tenant.")] = ()


class DirectoryConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``[directory]``: who works where."""

    file: Annotated[
        str, Meta(description="CSV with the columns user, department and optionally name, email, type.")
    ] = ""


class ClassifyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``[classify]``: how prompts and answers are judged. Scorers are kept as tables: see docs/classification.md."""

    patterns: Annotated[str, Meta(description="Folder with pattern files of your own; empty: the shipped ones.")] = ""
    calibration: Annotated[
        str, Meta(description="File of thresholds that `aitrail classify calibrate --out` wrote; empty: the defaults.")
    ] = ""
    suspicious: Annotated[
        float, Meta(description="Score that makes a prompt suspicious; 0: the file's, else 0.45.", ge=0, le=1)
    ] = 0.0
    high: Annotated[float, Meta(description="Score that makes it high; 0: the file's, else 0.85.", ge=0, le=1)] = 0.0
    canaries: Annotated[
        dict[str, tuple[str, ...]],
        Meta(
            description="Tokens planted in system prompts, by application (`*`: all); tokens or references such as "
            "env:NAME."
        ),
    ] = {}
    fingerprints: Annotated[
        str, Meta(description="File of system-prompt fingerprints that `aitrail classify fingerprint` wrote.")
    ] = ""
    system_prompt_words: Annotated[
        int, Meta(description="Words in a row of a system prompt that an answer repeats to be a finding.", ge=8)
    ] = 20
    scorers: Annotated[
        dict[str, dict[str, Any]],
        Meta(description="Further judges, one table each: `model`, `azure-prompt-shields`, `bedrock-guardrail`."),
    ] = {}


class Config(Struct, frozen=True):
    """A whole configuration; ``path`` is the file that it came from, ``text`` its text (to name lines in errors).

    ``destinations`` are kept as tables: which settings one has depends on its type (``aitrail.registry``); ``serve``,
    ``receivers`` and ``respond`` are kept so as well: what they may say is for the server to know
    (``aitrail.web.settings``).
    """

    path: str = ""
    text: str = ""
    store: StoreConfig = StoreConfig()
    spool: SpoolConfig = SpoolConfig()
    health: HealthConfig = HealthConfig()
    detect: DetectConfig = DetectConfig()
    tenants: dict[str, TenantConfig] = {}
    sources: dict[str, SourceConfig] = {}
    destinations: dict[str, dict[str, Any]] = {}
    serve: dict[str, Any] = {}
    receivers: dict[str, dict[str, Any]] = {}
    respond: dict[str, Any] = {}
    mapping: MappingConfig = MappingConfig()
    directory: DirectoryConfig = DirectoryConfig()
    classify: ClassifyConfig = ClassifyConfig()

    def tenant(self, name: str) -> TenantConfig:
        """Settings of a tenant; a tenant without a section has the defaults."""
        return self.tenants.get(name, TenantConfig())

    def section(self, name: str, value: dict[str, Any], kind: type[T], also: tuple[str, ...] = ()) -> T:
        """Convert a table of the file into ``kind``; raises ``ConfigError`` that names file, line, field and fix.

        ``also`` are fields that the table may have besides: what was misspelt may be one of them.
        """
        return _convert(value, kind, name, self.text, Path(self.path), also)

    def where(self, dotted: str) -> str:
        """Name a setting for an error: ``file:line: field``."""
        return _where(Path(self.path), self.text, dotted)

    def resolve(self, path: str) -> Path:
        """A path of the file, relative to the file's directory."""
        return Path(self.path).parent / path if self.path else Path(path)


_SINGLE: dict[str, type[Any]] = {
    "store": StoreConfig,
    "spool": SpoolConfig,
    "health": HealthConfig,
    "detect": DetectConfig,
    "mapping": MappingConfig,
    "directory": DirectoryConfig,
    "classify": ClassifyConfig,
}
_NAMED: dict[str, type[Any]] = {"tenants": TenantConfig, "sources": SourceConfig}
# How a value of a type is written in TOML, to show what is wanted.
_FORMS: dict[Any, str] = {str: '"..."', int: "1", float: "1.0", bool: "true", tuple: '["..."]', dict: "{ }"}
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def load(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: names the file, the line where it can be told, the field and the fix.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), hint="write one with: aitrail init") from None
    except (OSError, UnicodeDecodeError) as error:
        hint = "it must be UTF-8 text that this user may read"
        raise ConfigError(f"cannot be read ({error})", where=str(path), hint=hint) from None
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """Read a configuration's text; ``path`` is what errors call it and what its paths are relative to.

    Raises:
        ConfigError: as ``load``.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        hint = "texts stand in quotes, lists in brackets; a whole file to compare with: aitrail init -"
        raise ConfigError(f"not valid TOML: {error}", where=str(path), hint=hint) from None
    return _build(tree, text, path)


def _build(tree: dict[str, Any], text: str, path: Path) -> Config:
    known = [*_SINGLE, *_NAMED, "destinations", "serve", "receivers", "respond"]
    for name, value in tree.items():
        if name not in known or not isinstance(value, dict):
            raise ConfigError(f"unknown section [{name}]", where=_where(path, text, name), hint=_closest(name, known))
    parts: dict[str, Any] = {
        name: _convert(tree.get(name, {}), kind, name, text, path) for name, kind in _SINGLE.items()
    }
    for name, kind in _NAMED.items():
        entries = _entries(tree, name, text, path)
        if name == "sources":
            entries = {entry: _with_options(value) for entry, value in entries.items()}
        parts[name] = {entry: _convert(value, kind, f"{name}.{entry}", text, path) for entry, value in entries.items()}
    destinations = _entries(tree, "destinations", text, path)
    listening = {name: tree.get(name, {}) for name in ("serve", "respond")}
    listening["receivers"] = _entries(tree, "receivers", text, path)
    config = Config(path=str(path), text=text, destinations=destinations, **listening, **parts)
    for name, tenant in config.tenants.items():
        wrong = check_reference(tenant.key) if tenant.key else ""
        if wrong:
            raise ConfigError(wrong, where=_where(path, text, f"tenants.{name}.key"), hint='key = "env:NAME"')
    for name, source in config.sources.items():
        wrong = check_name(source.tenant)
        if wrong:
            where = _where(path, text, f"sources.{name}.tenant")
            raise ConfigError(f"the name {source.tenant!r} is not allowed", where=where, hint=wrong)
    return config


def _with_options(table: dict[str, Any]) -> dict[str, Any]:
    """A source's table with the settings of its type set apart: what they may be is known to the registry."""
    split: dict[str, Any] = {name: value for name, value in table.items() if name in SOURCE_FIELDS}
    return {**split, "options": {name: value for name, value in table.items() if name not in SOURCE_FIELDS}}


def check_name(name: str) -> str:
    """Say what a tenant, source or destination may be called when ``name`` is not allowed; else empty."""
    return "" if _NAME.fullmatch(name) else "lower-case letters, digits, '.', '_' and '-', at most 64"


def _entries(tree: dict[str, Any], name: str, text: str, path: Path) -> dict[str, Any]:
    """The named tables below ``[name.…]``, their names checked."""
    entries: dict[str, Any] = tree.get(name, {})
    for entry, value in entries.items():
        where = _where(path, text, f"{name}.{entry}")
        wrong = check_name(entry)
        if wrong:
            raise ConfigError(f"the name {entry!r} is not allowed", where=where, hint=wrong)
        if not isinstance(value, dict):
            raise ConfigError("this must be a table", where=where, hint=f"write [{name}.NAME] and its settings below")
    return entries


def _convert(value: Any, kind: type[T], prefix: str, text: str, path: Path, also: tuple[str, ...] = ()) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        field = re.search(r"at `\$\.?([^`]*)`", message)
        unknown = re.search(r"unknown field `([^`]*)`", message)
        name = unknown.group(1) if unknown else (field.group(1) if field else "")
        where = _where(path, text, f"{prefix}.{name}" if name else prefix)
        hint = _closest(name, [*getattr(kind, "__struct_fields__", ()), *also]) if unknown else ""
        missing = re.search(r"missing required field `([^`]*)`", message)
        if "enum value" in message:
            hint = f"one of: {', '.join(_choices(kind, name))}"
        elif missing:
            setting = missing.group(1)
            raise ConfigError(f"{setting!r} is missing", where=where, hint=_wanted(kind, setting)) from None
        elif not unknown:
            hint = _wanted(kind, name)
        plain = re.sub(r" - at `[^`]*`", "", message).replace("Object contains", "has an")
        plain = re.sub(r"`(\w+)`", lambda found: _TYPES.get(found.group(1), found.group(0)), plain).replace("`", "'")
        raise ConfigError(plain[:1].lower() + plain[1:], where=where, hint=hint) from None


def _wanted(kind: Any, name: str) -> str:
    """What the field ``name`` of ``kind`` takes, in the words of its description and with the form of its value."""
    first = name.partition(".")[0].partition("[")[0]
    hinted = get_type_hints(kind, include_extras=True).get(first) if isinstance(kind, type) else None
    if hinted is None:
        return "docs/configuration.md has every setting"
    base, metas = (get_args(hinted)[0], get_args(hinted)[1:]) if hasattr(hinted, "__metadata__") else (hinted, ())
    said = next((meta.description for meta in metas if isinstance(meta, Meta) and meta.description), "")
    form = _FORMS.get(get_origin(base) or base, "")
    return f"{first} = {form}  # {said}" if form else f"{first}: {said}"


def _choices(kind: Any, name: str) -> tuple[str, ...]:
    """The values that the field ``name`` (dotted below inner tables) of ``kind`` can have."""
    for step in name.split("."):
        kind = get_type_hints(kind).get(step, kind) if isinstance(kind, type) else kind
        inner = [one for one in get_args(kind) if isinstance(one, type) and issubclass(one, Struct)]
        kind = inner[0] if inner else kind
    # A choice that may be absent is a union of the choices and None.
    literals = [one for one in get_args(kind) if get_origin(one) is Literal]
    return tuple(str(value) for one in literals or [kind] for value in get_args(one))


def _closest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def _where(path: Path, text: str, dotted: str) -> str:
    """``file:line: field``; the line is found by the key's or the section's text, and left out when it is not."""
    leaf = dotted.rpartition(".")[2].partition("[")[0]
    section = dotted.rpartition(".")[0] or dotted
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("["):
            title = bare.strip("[] \t").replace('"', "").replace(" ", "")
            if title == dotted:
                return f"{path}:{number}: {dotted}"
            inside = title == section
        elif inside and re.match(rf"\"?{re.escape(leaf)}\"?\s*=", bare):
            return f"{path}:{number}: {dotted}"
    return f"{path}: {dotted}"
