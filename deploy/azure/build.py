"""Make the ARM templates of this folder: one for each hosting plan. Tables and streams are the catalog's.

Run it after a change of the event or of a part:  python deploy/azure/build.py [--check]
"""

import json
import sys
from pathlib import Path
from typing import Any

import part_alerts
import part_app
import part_grants
import part_logs
import part_storage
from part_names import FLEX_PARAMETERS, OUTPUTS, PARAMETERS, PREMIUM_PARAMETERS, VARIABLES

FOLDER = Path(__file__).parent
PLANS = ("flex", "premium")
_SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"


def template(plan: str) -> dict[str, Any]:
    """The whole template of one hosting plan."""
    return {
        "$schema": _SCHEMA,
        "contentVersion": "1.0.0.0",
        "metadata": {"description": f"aitrail as an Azure function app ({plan}); made by deploy/azure/build.py"},
        "parameters": {**PARAMETERS, **(PREMIUM_PARAMETERS if plan == "premium" else FLEX_PARAMETERS)},
        "variables": VARIABLES,
        "resources": [
            *part_logs.resources(),
            *part_storage.resources(),
            *part_app.resources(plan),
            *part_grants.resources(),
            *part_alerts.resources(),
        ],
        "outputs": OUTPUTS,
    }


def rendered(plan: str) -> str:
    """Its text."""
    return json.dumps(template(plan), indent=2, ensure_ascii=False) + "\n"


def path_of(plan: str) -> Path:
    """Where it is kept."""
    return FOLDER / f"azuredeploy.{plan}.json"


def main(check: bool) -> int:
    """Write the templates, or say which are stale."""
    stale = []
    for plan in PLANS:
        path, text = path_of(plan), rendered(plan)
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"stale: {', '.join(stale)}; run: python deploy/azure/build.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
