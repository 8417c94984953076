"""What all parts of the Sentinel solution share: names, identities, API versions, how JSON and YAML are written.

The solution's version is three numbers from 3.0.0 on, as the content hub asks for; a release of aitrail raises it.
"""

import json
import uuid
from typing import Any

import yaml

SOLUTION = "aitrail"
TITLE = "aitrail: AI access audit"
VERSION = "3.0.0"
# Of each rule, query, parser and workbook: raised by hand when what it finds changes its meaning.
CONTENT_VERSION = "1.0.0"
PUBLISHER = "aitrail"
OFFER = "azure-sentinel-solution-aitrail"
SOLUTION_ID = f"{PUBLISHER}.{OFFER}"
DATE = "2026-11-23"
SOURCE = "https://github.com/aitrail/aitrail"
DOCS = f"{SOURCE}/blob/main/docs"
SUPPORT = {"name": "aitrail", "tier": "Community", "link": f"{SOURCE}/issues"}
AUTHOR = {"name": "aitrail"}
PUSH_CONNECTOR = "AitrailPush"
FUNCTION_CONNECTOR = "AitrailFunctionApp"

SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
WORKSPACE = "Microsoft.OperationalInsights/workspaces"
# Versions of the APIs by type; `workspaces/providers/X` is SecurityInsights' `X` in its older form.
API = {
    f"{WORKSPACE}/providers/contentTemplates": "2023-04-01-preview",
    f"{WORKSPACE}/providers/contentPackages": "2023-04-01-preview",
    f"{WORKSPACE}/providers/metadata": "2022-01-01-preview",
    f"{WORKSPACE}/providers/dataConnectorDefinitions": "2022-09-01-preview",
    f"{WORKSPACE}/providers/dataConnectors": "2023-02-01-preview",
    f"{WORKSPACE}/providers/alertRules": "2023-12-01-preview",
    f"{WORKSPACE}/providers/Watchlists": "2023-02-01-preview",
    f"{WORKSPACE}/savedSearches": "2020-08-01",
    f"{WORKSPACE}/tables": "2022-10-01",
    "Microsoft.SecurityInsights/AlertRuleTemplates": "2023-02-01-preview",
    "Microsoft.Insights/dataCollectionRules": "2023-03-11",
    "Microsoft.Insights/workbooks": "2021-08-01",
    "Microsoft.Authorization/roleAssignments": "2022-04-01",
    "Microsoft.Logic/workflows": "2019-05-01",
    "Microsoft.Web/connections": "2016-06-01",
}
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, SOURCE)


def guid(*parts: str) -> str:
    """An identity that is the same in every build."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(("sentinel", *parts))))


def resource(type_: str, name: str, /, **rest: Any) -> dict[str, Any]:
    """An ARM resource of a type whose API version is known."""
    return {"type": type_, "apiVersion": API[type_], "name": name, **rest}


def template(
    resources: list[dict[str, Any]],
    parameters: dict[str, Any] | None = None,
    *,
    variables: dict[str, Any] | None = None,
    outputs: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """An ARM template."""
    return {
        "$schema": SCHEMA,
        "contentVersion": "1.0.0.0",
        **({"metadata": metadata} if metadata else {}),
        "parameters": parameters or {},
        "variables": variables or {},
        "resources": resources,
        "outputs": outputs or {},
    }


WORKSPACE_PARAMETERS = {
    "workspace": {"type": "string", "metadata": {"description": "Log Analytics workspace with Microsoft Sentinel"}},
    "location": {
        "type": "string",
        "defaultValue": "[resourceGroup().location]",
        "metadata": {"description": "Region of the workspace"},
    },
}


def as_line(value: Any) -> str:
    """JSON in one line."""
    return json.dumps(value, separators=(",", ":"))


_WIDE = 120


def as_json(value: Any, whole: int = 0) -> bytes:
    """Readable JSON in ASCII: what fits into a line is one, and so is what is ``whole`` levels deep, if that is set."""
    return (_lines(value, 0, whole or 99) + "\n").encode()


def _lines(value: Any, depth: int, whole: int) -> str:
    short = json.dumps(value)
    if depth >= whole or not isinstance(value, dict | list) or not value or len(short) + depth <= _WIDE:
        return short
    inner = " " * (depth + 1)
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {_lines(one, depth + 1, whole)}" for key, one in value.items()]
    else:
        parts = [inner + _lines(one, depth + 1, whole) for one in value]
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    return opened + "\n" + ",\n".join(parts) + "\n" + " " * depth + closed


class _Dumper(yaml.SafeDumper):
    """Lines as a block, lists indented below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists, too."""
        del indentless
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def as_yaml(value: Any) -> bytes:
    """YAML as the public repository of rules writes it: keys in order, queries as blocks."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return str(text).encode()
