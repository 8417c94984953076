"""The catalog for readers: a terminal table, ``docs/schema.md`` and plain JSON."""

import json
from itertools import groupby

import msgspec
from rich.table import Table
from rich.text import Text

from aitrail.event import SCHEMA_VERSION
from aitrail.schema.catalog import STANDARDS, FieldInfo, Standard, fields

GROUPS = {
    "record": "The record itself",
    "who": "Who",
    "where": "From where",
    "what": "What",
    "model": "Which model",
    "content": "Content, as far as the content mode allows",
    "verdict": "Verdicts",
    "outcome": "Outcome and cost",
    "behavior": "Behavior (filled by later stages)",
    "ledger": "Ledger (filled by later stages)",
}
_TITLES: dict[Standard, str] = {
    "ocsf": "OCSF 1.8",
    "ecs": "ECS 9.5",
    "otel": "OpenTelemetry",
    "cim": "Splunk CIM",
    "asim": "ASIM AgentEvent",
    "sentinel": "Sentinel column",
}

_INTRO = """\
# The event: `AccessEvent`

<!-- `aitrail schema --format markdown`; its source is the field catalog in connectors/aitrail/event.py. -->

Schema version {version}, {count} fields. One flat JSON object per access; a field that is absent means the same as an
empty string, an empty list or null. Fields marked *lower* are lower-case, always.

Other views of the same catalog: `aitrail schema --format table|json|jsonschema|ocsf|ecs|otel|cim|asim|kql|duckdb|es`.
"""
_NAMES_INTRO = """
## Names elsewhere

Where a standard translates a value (an enumeration number, nanoseconds), the place of the unchanged value follows after
the arrow; detection rules compare against that one.
"""


def _title(group: str) -> str:
    return GROUPS.get(group, group.capitalize())


def _example(field: FieldInfo) -> str:
    value = field.example
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value


def _facts(field: FieldInfo) -> str:
    facts = [field.python_type if not field.enum else "str"]
    facts += ["lower-case"] if field.lower and not field.enum else []
    facts += [field.unit] if field.unit else []
    facts += ["always there"] if field.required else []
    return ", ".join(facts)


def table() -> Table:
    """One row per field, sections by group; descriptions wrap to the terminal."""
    out = Table(title=f"AccessEvent, schema {SCHEMA_VERSION}", title_justify="left", expand=False, pad_edge=False)
    out.add_column("field", style="bold", no_wrap=True)
    out.add_column("type", overflow="fold", min_width=9, max_width=26)
    out.add_column("what it says", overflow="fold", min_width=30, ratio=1)
    for group, members in groupby(fields(), key=lambda field: field.group):
        out.add_section()
        out.add_row(Text(group.upper(), style="bold cyan"), "", Text(_title(group), style="bold cyan"))
        for field in members:
            about = Text(field.description)
            values = [value for value in field.enum if value]
            about.append(f"\n{' | '.join(values)}" if values else f"\ne.g. {_example(field)}", style="dim")
            out.add_row(field.name, _facts(field), about)
    return out


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def markdown() -> str:
    """The whole of ``docs/schema.md``; a test fails when the file on disk differs."""
    lines = [_INTRO.format(version=SCHEMA_VERSION, count=len(fields()))]
    for group, members in groupby(fields(), key=lambda field: field.group):
        lines += ["", f"## {_title(group)}", "", "| field | type | description | example |", "|---|---|---|---|"]
        for field in members:
            kind = _code(field.wire_type) + (" *lower*" if field.lower else "") + (f", {field.unit}" * bool(field.unit))
            kind += ", required" if field.required else ""
            values = ", ".join(_code(value) for value in field.enum if value)
            about = _cell(field.description) + (f" Values: {values}." if values else "")
            lines.append(f"| `{field.name}` | {kind} | {about} | {_code(_example(field))} |")
    lines += [
        _NAMES_INTRO,
        "| field | " + " | ".join(_TITLES[standard] for standard in STANDARDS) + " |",
        "|---" * (len(STANDARDS) + 1) + "|",
    ]
    for field in fields():
        cells = []
        for standard in STANDARDS:
            name, exact = field.name_in(standard), field.exact_in(standard)
            cells.append(_code(name) + (f" → {_code(exact)}" if exact != name else ""))
        lines.append(f"| `{field.name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def as_json() -> str:
    """All that is known about every field, for programs."""
    listed = [
        {
            **msgspec.to_builtins(field),
            "python_type": field.python_type,
            "wire_type": field.wire_type,
            "names": {name: field.name_in(name) for name in STANDARDS if field.name_in(name)},
            "exact_names": {
                name: field.exact_in(name) for name in STANDARDS if field.exact_in(name) != field.name_in(name)
            },
        }
        for field in fields()
    ]
    document = {"schema": "aitrail AccessEvent", "version": SCHEMA_VERSION, "fields": listed}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
