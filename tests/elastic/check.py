"""Judge the Elastic pack with what others wrote: pipelines with ``estceque``, ES|QL with Elastic's offline grammar.

Runs in an environment of its own (``.ci/elastic``) and reads committed files only. Usage: check.py PACK [STACK ...]
"""

import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import esql
import estceque

# The oldest stack that the pack is for decides the grammar.
OLDEST = "8.19.0"
Json = dict[str, Any]


def main() -> int:
    """Say what is wrong; 0 when nothing is."""
    pack, stacks = Path(sys.argv[1]), sys.argv[2:] or [OLDEST]
    wrong = list(pipelines(pack))
    types = fields(pack)
    for stack in stacks:
        found = list(queries(pack))
        for name, text, is_rule in found:
            wrong += [f"{stack}: {name}: {problem}" for problem in problems(name, text, types, stack, is_rule=is_rule)]
        print(f"{len(found)} ES|QL queries read by the grammar of {stack}")
        if len(found) < 150:
            wrong.append("queries are missing")
    wrong += mutants(types)
    for one in wrong:
        print(one, file=sys.stderr)
    return 1 if wrong else 0


# --- pipelines


def pipelines(pack: Path) -> Iterator[str]:
    """Each pipeline, and that a broken one would be found."""
    for path in sorted((pack / "elasticsearch" / "_ingest" / "pipeline").glob("*.json")):
        body = json.loads(path.read_text(encoding="utf-8"))
        yield from (f"{path.name}: {problem}" for problem in pipeline(body))
        for broken, change in _BROKEN.items():
            other = copy.deepcopy(body)
            change(other["processors"][0]["geoip"])
            if not list(pipeline(other)):
                yield f"{path.name}: {broken} was not found"
        print(f"{path.name}: {len(body['processors'])} processors accepted, {len(_BROKEN)} broken ones refused")


def pipeline(body: Json) -> Iterator[str]:
    """What the validator says."""
    try:
        estceque.validate_ingest_pipeline_processors(body["processors"])
        estceque.validate_ingest_pipeline_failure_processors(body["on_failure"])
    except ValueError as error:
        yield str(error).splitlines()[0]


_BROKEN: dict[str, Callable[[Json], object]] = {
    "a missing field": lambda one: one.pop("field"),
    "an unknown option": lambda one: one.update(fields="x"),
    "a wrong type": lambda one: one.update(ignore_missing="perhaps"),
}


# --- ES|QL


def fields(pack: Path) -> Json:
    """Every field of the data streams with its type, from the component templates."""
    found: Json = {}
    for path in sorted((pack / "elasticsearch" / "_component_template").glob("*.json")):
        mappings = json.loads(path.read_text(encoding="utf-8"))["template"].get("mappings", {})
        found |= dict(_leaves(mappings.get("properties", {}), ""))
    return {name: found.get(kind.get("path"), kind)["type"] for name, kind in found.items()}


def _leaves(properties: Json, before: str) -> Iterator[tuple[str, Json]]:
    for name, inner in properties.items():
        if "properties" in inner:
            yield from _leaves(inner["properties"], f"{before}{name}.")
        else:
            yield before + name, inner


def queries(pack: Path) -> Iterator[tuple[str, str, bool]]:
    """Name, text and whether it is a detection rule."""
    kibana = pack / "package" / "kibana"
    for path in sorted((kibana / "dashboard").glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["attributes"]["panelsJSON"]:
            drawn = panel["embeddableConfig"].get("attributes", {})
            query = drawn.get("state", {}).get("query", {})
            if "esql" in query:
                yield f"{path.stem}/{drawn['title']}", query["esql"], False
    for path in sorted((kibana / "search").glob("*.json")):
        source = json.loads(path.read_text(encoding="utf-8"))["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"]
        yield path.stem, source["query"]["esql"], False
    for path in sorted((kibana / "security_rule").glob("*.json")):
        rule = json.loads(path.read_text(encoding="utf-8"))["attributes"]
        if rule["language"] == "esql":
            yield rule["name"], rule["query"], True


def problems(name: str, text: str, types: Json, stack: str, *, is_rule: bool) -> Iterator[str]:
    """What the grammar, the types of fields and the conventions of rules say."""
    try:
        with esql.ParserConfig(min_stack_version=stack), esql.Schema(types) as schema:
            tree = esql.parse_query(text)
            esql.analyze(tree, schema)
            esql.verify_features(tree, stack)
            if is_rule:
                esql.validate_detection_rule_query(tree, name)
    except esql.EsqlError as error:
        yield " ".join(str(error).split())[:300]


_MUTANTS = (
    "FROM logs-ai_audit.access-* | WHERE user.idd == 'x' | KEEP user.id",
    'FROM logs-ai_audit.access-* | WHERE ai_audit.cost.usd == "x" | KEEP user.id',
    "FROM logs-ai_audit.access-* | STATS first = MIN(@timestamp) BY user.id",
    "FROM logs-ai_audit.access-* | WHERE",
    'FROM logs-ai_audit.access-* | WHERE STARTSWITH(user.id, "x") | KEEP user.id',
)


def mutants(types: Json) -> list[str]:
    """Wrong queries that must be refused."""
    return [
        f"was not refused: {text}" for text in _MUTANTS if not list(problems("", text, types, OLDEST, is_rule=False))
    ]


if __name__ == "__main__":
    sys.exit(main())
