"""The add-on ``splunk_app/TA-aitrail``: what of it is made from the table of inputs (``splunk_schemes``).

The collector itself, and the distributions that it imports, come in when the add-on is packaged
(``aitrail package splunk``): they are not in the source tree.
"""

import json

from aitrail import __version__
from aitrail.compiler.emit import Content, Pack
from aitrail.compiler.emit.splunk_cim import props
from aitrail.compiler.emit.splunk_conf import Stanza, conf
from aitrail.compiler.emit.splunk_icon import icon
from aitrail.splunk_schemes import ADDON, INDEX, INTERVAL, SCHEMES, SOURCETYPES, Arg, Scheme

_TITLE = "aitrail: inputs for AI access audit"
_TOLD = "Polls CloudTrail's event history and AI gateways, and writes normalized, classified accesses."
_ICONS = {"appIcon": 36, "appIcon_2x": 72, "appIconAlt": 36, "appIconAlt_2x": 72}
# What is done when an event is taken in; all else is the app's, on search heads.
_INDEX_TIME = ("SHOULD_LINEMERGE", "LINE_BREAKER", "TIME_PREFIX", "TIME_FORMAT", "MAX_TIMESTAMP_LOOKAHEAD", "TRUNCATE")

_SPEC_HEAD = """\
# Inputs of the add-on. Splunk's own settings hold as well: index, host, interval (seconds between two runs), disabled.
# Secrets are moved to storage/passwords when an input runs first; ******** stands here then.
"""


def files(content: Content) -> dict[str, bytes]:
    """The files that are made, by path below the add-on."""
    del content
    drawn = {size: icon(size) for size in sorted(set(_ICONS.values()))}
    return {
        "app.manifest": _manifest(),
        "default/app.conf": conf(_app()),
        "default/inputs.conf": conf({one.name: _defaults(one) for one in SCHEMES}),
        "default/props.conf": conf(_props()),
        "default/transforms.conf": conf(_transforms()),
        "README/inputs.conf.spec": _spec(),
        **{f"bin/{one.name}.py": _script(one) for one in SCHEMES},
        **{f"static/{name}.png": drawn[size] for name, size in _ICONS.items()},
    }


def _app() -> dict[str, Stanza]:
    return {
        "id": {"name": ADDON, "version": __version__},
        "launcher": {"author": "The aitrail authors", "description": _TOLD, "version": __version__},
        "package": {"id": ADDON, "check_for_updates": 0},
        "install": {"is_configured": 0, "state": "enabled", "build": 1},
        "ui": {"is_visible": 0, "label": _TITLE},
    }


def _manifest() -> bytes:
    manifest = {
        "schemaVersion": "2.0.0",
        "info": {
            "title": _TITLE,
            "id": {"group": None, "name": ADDON, "version": __version__},
            "author": [{"name": "The aitrail authors", "email": None, "company": None}],
            "releaseDate": None,
            "description": _TOLD,
            "classification": {
                "intendedAudience": "Security",
                "categories": ["Security, Fraud & Compliance"],
                "developmentStatus": "Production/Stable",
            },
            "commonInformationModels": None,
            "license": {"name": "Apache-2.0", "text": "LICENSE", "uri": None},
            "privacyPolicy": {"name": None, "text": None, "uri": None},
            "releaseNotes": {"name": "README", "text": "README.md", "uri": None},
        },
        "dependencies": None,
        "tasks": None,
        "inputGroups": None,
        "incompatibleApps": None,
        # Earlier ones have no Python 3.13.
        "platformRequirements": {"splunk": {"Enterprise": ">=10.0"}},
        "supportedDeployments": ["_standalone", "_distributed", "_search_head_clustering"],
        "targetWorkloads": ["_search_heads", "_forwarders"],
    }
    return json.dumps(manifest, indent=2).encode() + b"\n"


def _defaults(scheme: Scheme) -> Stanza:
    """What holds for every input of a kind."""
    del scheme
    return {
        "python.version": "python3",
        "python.required": "3.13",
        "index": INDEX,
        "sourcetype": SOURCETYPES["access"],
        "interval": INTERVAL,
        "disabled": 0,
    }


def _props() -> dict[str, Stanza]:
    """How events are taken in: one line each, with the time that it says; and the id as an indexed field.

    By the HTTP Event Collector the id comes as a field; so it is only of what the inputs write (by its ``source``)
    that it is taken out of the text.
    """
    known = props()
    taken = {one: {key: known[one][key] for key in _INDEX_TIME} for one in SOURCETYPES.values()}
    return {**taken, "source::aitrail_*://...": {"TRANSFORMS-aitrail": "aitrail_event_id"}}


def _transforms() -> dict[str, Stanza]:
    # A quote inside of a text is escaped, so that this is the event's own.
    return {"aitrail_event_id": {"REGEX": r'"event_id":"([0-9a-z]+)"', "FORMAT": "event_id::$1", "WRITE_META": "true"}}


def _spec() -> bytes:
    parts = [_SPEC_HEAD]
    for scheme in SCHEMES:
        parts.append(f"\n[{scheme.name}://<name>]\n* {scheme.description}\n")
        parts += [f"\n{arg.name} = <{_form(arg)}>\n* {arg.description}\n" for arg in scheme.args]
        parts.append("\npython.required = {3.13}\n* The Python that Splunk runs it with.\n")
    return "".join(parts).encode()


def _form(arg: Arg) -> str:
    return {"list": "comma-separated list", "number": "number"}.get(arg.kind, "string")


def _script(scheme: Scheme) -> bytes:
    text = f'''"""{scheme.title.removeprefix("aitrail: ")}: the modular input; generated by `aitrail content build`."""

# ruff: noqa: INP001  (Splunk runs the scripts of a folder, no package)
import sys

import collector_library

if __name__ == "__main__":
    sys.exit(collector_library.run({json.dumps(scheme.name)}))
'''
    return text.encode()


PACK = Pack(folder=f"splunk_app/{ADDON}", emit=files, owned=("bin/aitrail_*.py", "static/*.png", "README/*.spec"))
