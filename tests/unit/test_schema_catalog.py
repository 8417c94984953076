"""The catalog describes every field, its names exist where it says they do, and docs/schema.md is what it gives."""

import itertools
import json
import re
from pathlib import Path

import duckdb
import jsonschema
import msgspec
import ocsf_json_schema
import pytest

from aitrail.event import FIELD_NAMES, AccessEvent, encode
from aitrail.schema.catalog import STANDARDS, by_name, example_event, fields, pascal_case
from aitrail.schema.ecs import DERIVED, FOREIGN, OWN
from aitrail.schema.views import FORMATS, documents, elastic, json_schema, kusto, render, sql

ROOT = Path(__file__).parents[2]
ECS = json.loads((ROOT / "tests/data/ecs_9_5.json").read_text())
ASIM = json.loads((ROOT / "tests/data/asim_agent_event.json").read_text())
OCSF = ocsf_json_schema.get_ocsf_schema("1.8.0")
IDS = [field.name for field in fields()]


def test_catalog_is_complete_and_in_order() -> None:
    assert tuple(IDS) == FIELD_NAMES
    assert {field.group for field in fields()} <= set(documents.GROUPS)


@pytest.mark.parametrize("field", fields(), ids=IDS)
def test_field_is_described(field) -> None:
    assert field.description.endswith((".", "...")), field.description
    assert field.example not in ("", None, [])
    assert field.name_in("ocsf"), "every field has a place in OCSF, if only unmapped"
    assert field.name_in("ecs")
    if field.enum:
        assert field.example in field.enum
        assert field.lower
    if field.lower:
        texts = [field.example] if isinstance(field.example, str) else field.example
        assert all(text == text.lower() for text in texts)


def test_example_event_is_an_event_with_every_field_set() -> None:
    event = example_event()
    wire = json.loads(encode(event))
    # Defaults are absent on the wire; the example sets everything else.
    assert set(FIELD_NAMES) - set(wire) == set()


def _walk_ocsf(path: str) -> str:
    """Follow ``a.b[].c`` through the class and its objects; gives the last attribute's type."""
    attributes = OCSF["classes"]["api_activity"]["attributes"]
    kind = ""
    for part in path.split("."):
        name = part.removesuffix("[]")
        assert name in attributes, f"{path}: OCSF 1.8 has no {name}"
        attribute = attributes[name]
        assert attribute.get("is_array", False) == part.endswith("[]"), f"{path}: {name} array or not"
        kind = attribute["type"]
        attributes = OCSF["objects"][attribute["object_type"]]["attributes"] if kind == "object_t" else {}
    return kind


@pytest.mark.parametrize("field", fields(), ids=IDS)
def test_ocsf_names_exist(field) -> None:
    for name in (field.name_in("ocsf"), field.exact_in("ocsf")):
        if not name.startswith("unmapped."):
            _walk_ocsf(name)
        else:
            assert name == f"unmapped.{field.name}"


def test_ocsf_walk_refuses_what_is_not_there() -> None:
    with pytest.raises(AssertionError, match="no prompt_text"):
        _walk_ocsf("message_context.prompt_text")  # 1.9 has it, 1.8 does not
    with pytest.raises(AssertionError, match="array"):
        _walk_ocsf("resources.uid")


@pytest.mark.parametrize("field", fields(), ids=IDS)
def test_ecs_names_exist(field) -> None:
    for name in (field.name_in("ecs"), field.exact_in("ecs")):
        assert name.startswith(OWN) or name in ECS["fields"] or name in FOREIGN, name
    assert not field.name_in("ecs").startswith("gen_ai.request.model."), "clashes with the keyword gen_ai.request.model"


def test_ecs_exact_places_are_unique_and_none_is_inside_another() -> None:
    names = sorted([field.exact_in("ecs") for field in fields()] + list(DERIVED))
    assert len(set(names)) == len(names)
    for shorter, longer in itertools.pairwise(names):
        assert not longer.startswith(f"{shorter}."), (shorter, longer)


def test_ocsf_plain_exact_places_are_unique() -> None:
    places = [field.exact_in("ocsf") for field in fields() if "[]" not in field.exact_in("ocsf")]
    assert len(set(places)) == len(places)


def test_asim_names_are_columns() -> None:
    known = {*ASIM["columns"], *ASIM["by_parsers"]}
    for field in fields():
        name = field.name_in("asim")
        assert not name or name in known, (field.name, name)


def test_sentinel_columns_are_legal() -> None:
    names = [column for _, column, _ in kusto.columns()]
    assert len({name.lower() for name in names}) == len(names) <= 500
    for field in fields():
        column = field.name_in("sentinel")
        assert column not in kusto.RESERVED
        assert column.lower() not in {name.lower() for name in kusto.RESERVED}
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]{0,44}", column), column
    assert by_name()["tenant_id"].name_in("sentinel") == "AITenantId"
    assert pascal_case("tenant_id") in kusto.RESERVED  # why it needs a name of its own


def test_cim_and_otel_names_are_names() -> None:
    for standard in ("cim", "otel"):
        for field in fields():
            assert re.fullmatch(r"[A-Za-z_][\w.]*|", field.name_in(standard))


@pytest.mark.parametrize("name", FORMATS)
def test_every_view_names_every_field_it_can(name) -> None:
    view = render(name)
    if name in ("table", "markdown", "json", "jsonschema", "ocsf", "ecs", "duckdb"):
        assert all(field.name in view for field in fields())
    if name == "kql":
        assert all(field.name_in("sentinel") in view for field in fields())
    if name == "es":
        assert json.loads(view)["template"]["mappings"]["dynamic"] is False


@pytest.mark.parametrize("width", [80, 140])
def test_table_fits_the_terminal(width) -> None:
    lines = render("table", width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)


def test_docs_are_up_to_date() -> None:
    on_disk = (ROOT / "docs/schema.md").read_text(encoding="utf-8")
    # docs/generate.py puts a line of its own above what `aitrail schema --format markdown` prints.
    assert on_disk.endswith(documents.markdown()), "run: python docs/generate.py"
    assert len(on_disk) - len(documents.markdown()) < 100


def test_markdown_tables_have_equal_rows() -> None:
    for block in re.findall(r"(?:^\|.*\n)+", documents.markdown(), re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(counts) == 1, block[:200]


def test_json_schema_accepts_events_and_refuses_others() -> None:
    validator = jsonschema.Draft202012Validator(
        json_schema.schema(), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    jsonschema.Draft202012Validator.check_schema(json_schema.schema())
    wire = json.loads(encode(example_event()))
    validator.validate(wire)
    minimal = {key: wire[key] for key in ("event_id", "timestamp", "tenant_id", "source")}
    validator.validate(minimal)
    for bad in (
        {**wire, "outcome_status": "maybe"},
        {**wire, "timestamp": "2026-11-23 09:14"},
        {**wire, "src_ip": "035.249.253.232"},
        {**wire, "prompt_tokens": "12"},
        {**wire, "surprise": 1},
        {key: value for key, value in wire.items() if key != "event_id"},
    ):
        assert not validator.is_valid(bad), bad
        if "surprise" not in bad and bad.get("timestamp") == wire["timestamp"] and bad["src_ip"] == wire["src_ip"]:
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert(bad, AccessEvent)


def test_duckdb_statement_runs_and_takes_an_event(tmp_path) -> None:
    path = tmp_path / "event.json"
    path.write_bytes(encode(example_event()))
    with duckdb.connect() as connection:
        connection.execute(sql.document())
        columns = ", ".join(f"\"{name}\": '{sql.TYPES[field.kind]}'" for name, field in by_name().items())
        connection.execute(f"INSERT INTO events SELECT * FROM read_json('{path}', columns={{{columns}}})")
        row = connection.execute("SELECT timestamp, prompt_tokens, owasp, mfa FROM events").fetchone()
    assert row is not None
    assert row[0].isoformat(timespec="milliseconds") + "Z" == example_event().timestamp
    assert row[1:] == (1120, ["llm01:2025", "llm01:2026"], True)


def test_elastic_types_agree_with_ecs() -> None:
    families = {"long": {"long", "integer"}, "double": {"double", "float"}, "float": {"float"}}
    for name, kind in elastic.leaf_types().items():
        if name in ECS["fields"]:
            assert ECS["fields"][name][0] in families.get(kind["type"], {kind["type"]}), name


def test_standards_are_listed_once() -> None:
    assert STANDARDS == ("ocsf", "ecs", "otel", "cim", "asim", "sentinel")
    used = {key.removesuffix("_exact") for field in fields() for key in field.names}
    assert used <= set(STANDARDS)
