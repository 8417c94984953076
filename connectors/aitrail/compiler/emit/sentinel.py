"""The solution for Microsoft Sentinel: what of ``sentinel_workbooks`` is made from the content and the field catalog.

``Logos``, ``README.md`` and ``ReleaseNotes.md`` are written by hand; all else is given here. ``Package`` is what is
installed: templates for the content hub, and, as its parameters wish, rules, hunting queries and workbooks at once.
``deploy`` holds tables and data collection rule for collectors that bring their own identity.
"""

from typing import Any

from aitrail.compiler.emit import Content, Files, Pack
from aitrail.compiler.emit import sentinel_connectors as connectors
from aitrail.compiler.emit import sentinel_hunts as hunts
from aitrail.compiler.emit import sentinel_live as live
from aitrail.compiler.emit.archive import zipped
from aitrail.compiler.emit.sentinel_facts import (
    API,
    PUSH_CONNECTOR,
    SOLUTION,
    TITLE,
    VERSION,
    as_json,
    as_yaml,
)
from aitrail.compiler.emit.sentinel_lists import as_template, watchlists
from aitrail.compiler.emit.sentinel_package import ABOUT, main_template, solution_metadata, tried_with
from aitrail.compiler.emit.sentinel_parsers import as_asim, as_function, parsers
from aitrail.compiler.emit.sentinel_pieces import pieces
from aitrail.compiler.emit.sentinel_playbooks import azuredeploy, playbooks
from aitrail.compiler.emit.sentinel_rules import as_hunt, as_rule, file_name
from aitrail.compiler.emit.sentinel_tables import collection
from aitrail.compiler.emit.sentinel_wizard import wizard
from aitrail.compiler.emit.sentinel_workbooks import metadata, workbook, workbook_key, workbook_title

_PUSH = "Data Connectors/AitrailPush_ccf"


def files(content: Content) -> dict[str, bytes]:
    """The files that are made, by path below the solution."""
    scheduled, hunted = live.kinds(content)
    titles = {board.name: workbook_title(board) for board in content.dashboards}
    made: dict[str, bytes] = {
        "SolutionMetadata.json": as_json(solution_metadata()),
        "deploy/collection.json": as_json(collection()),
        **{f"Analytic Rules/{file_name(rule)}": as_yaml(as_rule(rule)) for rule in scheduled},
        **{f"Hunting Queries/{file_name(rule)}": as_yaml(as_hunt(rule)) for rule in hunted},
        **{f"Hunting Queries/{one.name}.yaml": as_yaml(hunts.as_yaml_hunt(one)) for one in hunts.HUNTS},
        **{f"Parsers/{one.name}.yaml": as_yaml(as_asim(one) if one.asim else as_function(one)) for one in parsers()},
        **{f"Workbooks/{workbook_key(one)}.json": as_json(workbook(one, titles)) for one in content.dashboards},
        "Workbooks/WorkbooksMetadata.json": as_json([metadata(one) for one in content.dashboards]),
        **{f"Watchlists/{one.alias}.json": as_json(as_template(one)) for one in watchlists()},
        **{f"Playbooks/{one.name}/azuredeploy.json": as_json(azuredeploy(one)) for one in playbooks()},
        **_connector_files(),
        # A resource is a line: what people read is in the files that it is made of.
        "Package/mainTemplate.json": as_json(main_template(content), 3),
        "Package/createUiDefinition.json": as_json(wizard(pieces(content))),
        "Package/testParameters.json": as_json(tried_with()),
    }
    made[f"Data/Solution_{SOLUTION}.json"] = as_json(_listing(made))
    return made


def _connector_files() -> dict[str, bytes]:
    """The parts of the push connector as the packager of the public repository reads them, and the function's page."""
    definition = {
        "name": PUSH_CONNECTOR,
        "apiVersion": "2022-09-01-preview",
        "type": "Microsoft.SecurityInsights/dataConnectorDefinitions",
        "location": "{{location}}",
        "kind": "Customizable",
        "properties": {"connectorUiConfig": connectors.push_definition()},
    }
    connection = {
        "name": PUSH_CONNECTOR,
        "apiVersion": API["Microsoft.OperationalInsights/workspaces/providers/dataConnectors"],
        "type": "Microsoft.SecurityInsights/dataConnectors",
        "location": "{{location}}",
        "kind": "Push",
        "properties": connectors.push_connection(),
    }
    return {
        f"{_PUSH}/AitrailPush_connectorDefinition.json": as_json(definition),
        f"{_PUSH}/AitrailPush_dataConnector.json": as_json(connection),
        f"{_PUSH}/AitrailPush_DCR.json": as_json([connectors.push_rule()]),
        f"{_PUSH}/AitrailPush_tables.json": as_json(connectors.push_tables()),
        "Data Connectors/Aitrail_API_FunctionApp.json": as_json(connectors.function_page()),
    }


def _listing(made: Files) -> dict[str, Any]:
    """What the public repository's packager is given."""

    def below(folder: str, ending: str) -> list[str]:
        return sorted(path for path in made if path.startswith(f"{folder}/") and path.endswith(ending))

    return {
        "Name": SOLUTION,
        "Author": "aitrail",
        "Logo": connectors.logo_html(),
        "Description": ABOUT,
        "Data Connectors": [
            f"{_PUSH}/AitrailPush_connectorDefinition.json",
            "Data Connectors/Aitrail_API_FunctionApp.json",
        ],
        "Parsers": below("Parsers", ".yaml"),
        "Workbooks": [path for path in below("Workbooks", ".json") if "Metadata" not in path],
        "Analytic Rules": below("Analytic Rules", ".yaml"),
        "Hunting Queries": below("Hunting Queries", ".yaml"),
        "Playbooks": below("Playbooks", ".json"),
        "Watchlists": below("Watchlists", ".json"),
        "BasePath": "sentinel_workbooks",
        "Version": VERSION,
        "Metadata": "SolutionMetadata.json",
        "TemplateSpec": True,
        "Is1PConnector": False,
        "Title": TITLE,
    }


def archives(held: Files) -> dict[str, bytes]:
    """The package for the content hub or a custom deployment, and the whole solution."""
    package = {name: held[f"Package/{name}"] for name in ("mainTemplate.json", "createUiDefinition.json")}
    return {
        f"{SOLUTION}-sentinel-{VERSION}.zip": zipped(package),
        f"{SOLUTION}-sentinel-solution-{VERSION}.zip": zipped(held, "sentinel_workbooks"),
    }


PACK = Pack(
    folder="sentinel_workbooks",
    emit=files,
    owned=(
        "Analytic Rules/*.yaml",
        "Hunting Queries/*.yaml",
        "Parsers/*.yaml",
        "Workbooks/*.json",
        "Watchlists/*.json",
        "Playbooks/*/azuredeploy.json",
        "deploy/*.json",
    ),
    archives=archives,
)
