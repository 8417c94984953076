"""Judge a report of AppInspect: no error, no failure, and no warning that is not known and reasoned here."""

import json
import sys
from pathlib import Path
from typing import Any

# Check -> why the warning stays.
KNOWN = {
    "check_collections_conf": "Watchlists are KV store collections; it says itself: no action required.",
    "check_for_python_script_existence": "Scripts are for Python 3; the check asks about the change from Python 2.",
}
BAD = ("error", "failure", "future_failure")


def main() -> int:
    """Say what is wrong with the report in the file that is named."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(" ".join(f"{key}={count}" for key, count in sorted(report["summary"].items())))
    found: list[dict[str, Any]] = [
        check for part in report["reports"] for group in part["groups"] for check in group["checks"]
    ]
    told = [check for check in found if check["result"] in BAD]
    told += [check for check in found if check["result"] == "warning" and check["name"] not in KNOWN]
    for check in told:
        for message in check["messages"][:5]:
            print(f"{check['result']}: {check['name']}: {message['message'][:400]}", file=sys.stderr)
    return 1 if told or not found else 0


if __name__ == "__main__":
    sys.exit(main())
