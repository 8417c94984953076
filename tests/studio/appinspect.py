"""Judge a report of AppInspect: no error, no failure, and no warning that is not known and reasoned here."""

import json
import re
import sys
from pathlib import Path
from typing import Any

# Check -> why the warning stays.
KNOWN = {
    "check_collections_conf": "Watchlists are KV store collections; it says itself: no action required.",
    "check_for_python_script_existence": "Scripts are for Python 3; the check asks about the change from Python 2.",
}
# The same for the add-on, with the files that may say it ("None": none is named). Its native modules, ELF files of RE2
# and msgspec for two processors, get no warning under these tags; the tag aarch64_compatibility, which asks that a
# package has nothing for x86_64, is not for a package that has both.
ADDON = {
    "check_for_python_script_existence": ("As above.", "None"),
    "check_for_modular_inputs": ("What the add-on is for; it says itself: no action required.", "README/inputs"),
    "check_python_sdk_version": ("It finds splunk-sdk 3.0.1, the newest: no action required.", "None|lib/splunk_sdk"),
    # botocore starts a program only if an AWS profile says so (credential_process); the collector has one thread for
    # each destination beyond the first, and here is one destination.
    "check_for_possible_threading": (
        "None of them is reached.",
        "lib/botocore/credentials.py|lib/aitrail/runtime/scheduled/sending.py",
    ),
    "check_hostnames_and_ips": (
        "Addresses that are refused (cloud metadata) or kept from the proxy, and documentation's own; none is called.",
        "lib/urllib3.*|lib/aitrail/(streams|event|net/_connect|runtime/scheduled/splunk_settings).py",
    ),
    "check_for_supported_tls": (
        "A look-up of python-stdnum that nobody calls: only the number's own form is checked.",
        "lib/stdnum/de/handelsregisternummer.py",
    ),
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
    named = ADDON if "TA-" in Path(sys.argv[1]).name else {name: (reason, ".*") for name, reason in KNOWN.items()}
    told += [check for check in found if check["result"] == "warning" and not _is_known(check, named)]
    for check in told:
        for message in check["messages"][:5]:
            print(f"{check['result']}: {check['name']}: {message['message'][:400]}", file=sys.stderr)
    return 1 if told or not found else 0


def _is_known(check: dict[str, Any], known: dict[str, tuple[str, str]]) -> bool:
    """Whether the warning is known, and for every file that it names."""
    _, files = known.get(check["name"], ("", "(?!)"))
    return all(re.match(files, str(message.get("message_filename"))) for message in check["messages"])


if __name__ == "__main__":
    sys.exit(main())
