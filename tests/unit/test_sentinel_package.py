"""The package of the Sentinel solution: every ARM expression reads and resolves, every piece is named and complete."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aitrail.compiler.build import content
from aitrail.compiler.emit import Content, sentinel_rules
from aitrail.compiler.emit.packs import source_tree
from aitrail.compiler.emit.sentinel_lists import watchlists
from aitrail.contentdir import content_path

PACK = (source_tree() or Path()) / "sentinel_workbooks"
# Several times as fast where libyaml is there.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# The closed list of the public repository (ValidDomainsVerticals), as far as a solution like this can choose from it.
_DOMAINS = {"Application", "Compliance", "Security - Threat Protection", "Security - Information Protection"}


@pytest.fixture(scope="module")
def of() -> Content:
    return content(content_path("detections"))


def read(path: str) -> Any:
    return json.loads((PACK / path).read_text(encoding="utf-8"))


def yamls(folder: str) -> list[dict[str, Any]]:
    return [yaml.load(path.read_bytes(), Loader=_LOADER) for path in sorted((PACK / folder).glob("*.yaml"))]


def walk(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from walk(one)


RULES = yamls("Analytic Rules")
HUNTED = yamls("Hunting Queries")
WORKBOOKS = sorted((PACK / "Workbooks").glob("Aitrail*.json"))
MAIN = read("Package/mainTemplate.json")
WIZARD = read("Package/createUiDefinition.json")


# --- ARM: every expression reads, and what it names is there


_TOKEN = re.compile(r"\s*(?:('(?:[^']|'')*')|([A-Za-z_]\w*)|(-?\d+)|(=>)|([()\[\],.]))")
_FUNCTIONS = {
    "concat",
    "resourceId",
    "extensionResourceId",
    "subscriptionResourceId",
    "parameters",
    "variables",
    "resourceGroup",
    "subscription",
    "take",
    "uniqueString",
    "guid",
    "newGuid",
    "replace",
    "last",
    "split",
    "union",
    "createObject",
    "items",
    "length",
    "copyIndex",
    "reference",
    "not",
    "empty",
    "string",
    "if",
    "createArray",
}


def calls(expression: str) -> list[tuple[str, str]]:
    """Function and first argument of all calls; fails when the expression does not read."""
    place, tokens = 0, []
    while place < len(expression):
        found = _TOKEN.match(expression, place)
        assert found, f"{expression!r} at {place}"
        tokens.append(next(one for one in found.groups() if one))
        place = found.end()
    depth, made = [], []
    for number, token in enumerate(tokens):
        if token in "([":
            depth.append(token)
        elif token in ")]":
            assert depth.pop() == {")": "(", "]": "["}[token], expression
        elif number + 1 < len(tokens) and tokens[number + 1] == "(" and re.match(r"[A-Za-z_]", token):
            made.append((token, tokens[number + 2].strip("'")))
    assert not depth, expression
    return made


def resolves(template: dict[str, Any], *, inner: bool = False) -> int:
    """Every expression of a template; inner templates by themselves. Gives how many there were."""
    scope = {kind: {name.lower() for name in template.get(kind, {})} for kind in ("parameters", "variables")}
    count = 0
    nested = []

    def visit(value: Any) -> None:
        nonlocal count
        if isinstance(value, dict):
            for key, one in value.items():
                if key == "mainTemplate":
                    nested.append(one)
                visit(one)
        elif isinstance(value, list):
            for one in value:
                visit(one)
        elif isinstance(value, str) and value.startswith("["):
            if value.startswith("[[") != inner:
                return
            count += 1
            text = value[1:] if inner else value
            assert text.endswith("]"), f"{value[:80]!r} is no expression and begins like one"
            for function, argument in calls(text[1:-1]):
                assert function in _FUNCTIONS, function
                if function in scope:
                    assert argument.lower() in scope[function], f"{function}('{argument}')"

    visit(template)
    for one in nested:
        count += resolves(one, inner=True)
    return count


TEMPLATES = [
    "Package/mainTemplate.json",
    "deploy/collection.json",
    *(f"Playbooks/{path.parent.name}/azuredeploy.json" for path in sorted((PACK / "Playbooks").rglob("*.json"))),
    *(f"Watchlists/{one.alias}.json" for one in watchlists()),
]


@pytest.mark.parametrize("path", TEMPLATES)
def test_every_reference_of_a_template_resolves(path: str) -> None:
    made = read(path)
    assert resolves(made) > 0
    names = [(one["type"], one["name"]) for one in made["resources"]]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d(-preview)?", one["apiVersion"]) for one in made["resources"])
    used = set(re.findall(r"parameters\('([\w-]+)'\)", json.dumps(made)))
    unused = set(made["parameters"]) - used
    assert unused <= {"location"}, "a parameter that nothing reads"


def test_a_wrong_reference_is_seen() -> None:
    for wrong in ("[parameters('other')]", "[concat('a', 'b']", "[variables(one)]", "[ofNobody('a')]", "[a](b) c"):
        with pytest.raises(AssertionError):
            resolves({"parameters": {"one": {}}, "variables": {}, "resources": [{"name": wrong}]})
    assert resolves({"parameters": {"one": {}}, "resources": [{"name": "[parameters('one')]"}]}) == 1


def test_limits_of_arm() -> None:
    assert len(MAIN["resources"]) + len(RULES) + len(HUNTED) + len(WORKBOOKS) < 800
    assert len(MAIN["variables"]) <= 256
    assert len(MAIN["parameters"]) <= 256
    # After expansion everything that is made at once is there a second time.
    assert len(json.dumps(MAIN)) + len(json.dumps(MAIN["variables"])) < 4_000_000
    assert max(len(json.dumps(one)) for one in MAIN["resources"]) < 1_000_000


# --- the package


def pieces() -> list[dict[str, Any]]:
    kind = "Microsoft.OperationalInsights/workspaces/providers/contentTemplates"
    return [one["properties"] for one in MAIN["resources"] if one["type"] == kind]


def test_the_package_names_all_its_pieces(of: Content) -> None:
    package = next(one for one in MAIN["resources"] if one["type"].endswith("/contentPackages"))["properties"]
    made = [(one["contentKind"], one["contentId"], one["version"]) for one in pieces()]
    assert len(set(made)) == len(made)
    named = [(one["kind"], one["contentId"], one["version"]) for one in package["dependencies"]["criteria"]]
    lists = [one for one in named if one[0] == "Watchlist"]
    assert sorted(named) == sorted([*(one for one in made if one[0] != "ResourcesDataConnector"), *lists])
    assert [one[1] for one in lists] == [one.alias for one in watchlists()]
    assert Counter(kind for kind, _, _ in made) == {
        "DataConnector": 2, "ResourcesDataConnector": 1, "Parser": 3, "Workbook": 6, "AnalyticsRule": len(RULES),
        "HuntingQuery": len(HUNTED), "Playbook": 2,
    }  # fmt: skip
    assert package["contentSchemaVersion"] == "3.0.0"
    assert re.fullmatch(r"3\.\d+\.\d+", package["version"])
    assert re.fullmatch(r"[a-z]+\.azure-sentinel-solution-[a-z]+", MAIN["variables"]["solutionId"])


def test_each_piece_says_what_it_belongs_to() -> None:
    for piece in pieces():
        inner = piece["mainTemplate"]["resources"]
        own = [one["properties"] for one in inner if one["type"].endswith("/metadata")]
        assert len(own) == 1, piece["contentId"]
        assert (own[0]["contentId"], own[0]["kind"], own[0]["version"]) == (
            piece["contentId"], piece["contentKind"], piece["version"],
        )  # fmt: skip
        assert f"-{piece['contentKind']}-{piece['contentId']}-{piece['version']}" in piece["contentProductId"]
        assert piece["packageVersion"] == MAIN["variables"]["_solutionVersion"]


def test_the_package_holds_what_the_files_hold(of: Content) -> None:
    """Rules, hunts, workbooks and playbooks of the package are those of the folders."""
    variables = MAIN["variables"]
    for rule in RULES:
        packed = variables["rules"][rule["id"]]
        assert packed["query"] == rule["query"]
        assert packed["entityMappings"] == rule["entityMappings"]
        assert packed["tactics"] == rule["tactics"]
        techniques = {one.partition(".")[0] for one in rule["relevantTechniques"]}
        assert set(packed["techniques"]) == techniques
        assert variables["ruleKinds"][rule["id"]] == rule["kind"]
        if rule["kind"] == "Scheduled":
            assert packed["suppressionEnabled"] is False
            assert re.fullmatch(r"P(\d+D)?(T(\d+H)?(\d+M)?)?", packed["queryPeriod"])
    assert {one["id"]: one["query"] for one in HUNTED} == {key: one["query"] for key, one in variables["hunts"].items()}
    saved = [json.loads(one["serializedData"]) for one in variables["workbooks"].values()]
    key = lambda book: book["fromTemplateId"]  # noqa: E731
    assert sorted(saved, key=key) == sorted(
        (json.loads(path.read_text(encoding="utf-8")) for path in WORKBOOKS), key=key
    )
    rules = {rule.meta.id: rule for rule in (*of.detections, *of.behaviors)}
    needs = {
        one["contentId"]: one["mainTemplate"]["resources"][0]["properties"]
        for one in pieces()
        if one["contentKind"] == "AnalyticsRule"
    }
    for id_, text in needs.items():
        wanted = sentinel_rules.as_rule(rules[id_])["requiredDataConnectors"]
        template = re.search(r"variables\('(template-\w+)'\)", text)
        assert template
        assert variables[template[1]]["requiredDataConnectors"] == wanted


def test_nothing_runs_that_was_not_asked_for() -> None:
    wishes = {name: one["defaultValue"] for name, one in MAIN["parameters"].items() if one["type"] == "bool"}
    assert wishes.pop("createWatchlists") is True
    assert wishes == dict.fromkeys(("createRules", "enableRules", "createHunts", "createWorkbooks"), False)
    looped = {one["copy"]["name"]: one for one in MAIN["resources"] if "copy" in one}
    assert {name: one["condition"] for name, one in looped.items()} == {
        "rules": "[parameters('createRules')]",
        "hunts": "[parameters('createHunts')]",
        "workbooks": "[parameters('createWorkbooks')]",
    }


def test_the_wizard_gives_what_the_template_takes() -> None:
    given = WIZARD["parameters"]["outputs"]
    assert set(given) <= set(MAIN["parameters"])
    assert {name for name, one in MAIN["parameters"].items() if "defaultValue" not in one} <= set(given)
    basics = {one["name"] for one in WIZARD["parameters"]["basics"]}
    steps = {one["name"]: {element["name"] for element in one["elements"]} for one in WIZARD["parameters"]["steps"]}
    text = json.dumps(WIZARD)
    assert set(re.findall(r"basics\('(\w+)'\)", text)) <= basics
    for step, element in re.findall(r"steps\('(\w+)'\)\.(\w+)", text):
        assert element in steps[step]
    labels = [
        one["label"]
        for step in WIZARD["parameters"]["steps"]
        for one in step["elements"]
        if one["type"].endswith("Section")
    ]
    assert sorted(labels) == sorted([
        *(one["displayName"] for one in pieces() if one["contentKind"] not in ("Parser", "ResourcesDataConnector")),
        *(one.title for one in watchlists()),
    ])  # fmt: skip
    names = [one["name"] for one in walk(WIZARD) if isinstance(one, dict) and "name" in one and "type" in one]
    assert len(set(names)) == len(names)
    tested = read("Package/testParameters.json")
    assert set(tested) <= set(MAIN["parameters"])


def test_metadata_of_the_solution() -> None:
    told = read("SolutionMetadata.json")
    assert told["offerId"].startswith("azure-sentinel-solution-")
    assert f"{told['publisherId']}.{told['offerId']}" == MAIN["variables"]["solutionId"]
    assert set(told["categories"]["domains"]) <= _DOMAINS
    assert set(told["categories"]["verticals"]) <= {"Finance"}
    assert told["support"]["tier"] in ("Microsoft", "Partner", "Community")
    listed = read("Data/Solution_aitrail.json")
    for kind in (
        "Analytic Rules",
        "Hunting Queries",
        "Parsers",
        "Workbooks",
        "Playbooks",
        "Watchlists",
        "Data Connectors",
    ):
        assert listed[kind]
        assert [one for one in listed[kind] if not (PACK / one).is_file()] == []


def test_the_guide_counts_what_is_there() -> None:
    guide = (PACK.parent / "docs" / "install-sentinel.md").read_text(encoding="utf-8")
    told = re.search(r"six workbooks, (\d+) analytics rules,\s+(\d+) hunting queries", guide)
    assert told
    assert (int(told[1]), int(told[2]), len(WORKBOOKS)) == (len(RULES), len(HUNTED), 6)
    for name in (
        "createWatchlists",
        "createRules",
        "enableRules",
        "createHunts",
        "createWorkbooks",
        "principalId",
        "totalRetentionInDays",
    ):
        assert f"`{name}`" in guide or f"{name}=" in guide
