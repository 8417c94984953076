"""The search-time app for Splunk: what of ``splunk_app/aitrail`` is made from the content and the field catalog."""

import csv
import io
import json

from aitrail import __version__
from aitrail.compiler.emit import Content, Files, Pack
from aitrail.compiler.emit import splunk_cim as cim
from aitrail.compiler.emit.archive import tar_gz
from aitrail.compiler.emit.splunk_conf import Stanza, conf
from aitrail.compiler.emit.splunk_icon import icon
from aitrail.compiler.emit.splunk_panels import APP
from aitrail.compiler.emit.splunk_searches import annotations, as_finding, stanza, stanza_name
from aitrail.compiler.emit.splunk_studio import view, view_name
from aitrail.compiler.load import PHASES
from aitrail.contentdir import content_path

_ICONS = {"appIcon": 36, "appIcon_2x": 72, "appIconAlt": 36, "appIconAlt_2x": 72}
INDEX = "ai_audit"


def files(content: Content) -> dict[str, bytes]:
    """The files that are made, by path below the app."""
    return {
        "app.manifest": _manifest(),
        "default/app.conf": conf(_app()),
        "default/props.conf": conf(cim.props()),
        "default/eventtypes.conf": conf(cim.eventtypes()),
        "default/tags.conf": conf(cim.tags()),
        "default/macros.conf": conf(_macros()),
        "default/savedsearches.conf": conf(searches(content)),
        "default/data/ui/nav/default.xml": _nav(content),
        "lookups/aitrail_rules.csv": _rules(content),
        "lookups/aitrail_approved_models_start.csv": _approved(),
        **{f"static/{name}.png": icon(size) for name, size in _ICONS.items()},
        **{f"default/data/ui/views/{view_name(one)}.xml": view(one) for one in content.dashboards},
    }


def searches(content: Content) -> dict[str, Stanza]:
    """All saved searches by name.

    Raises:
        ValueError: two rules have the same title.
    """
    rules = (*content.detections, *content.behaviors)
    found = {stanza_name(rule): stanza(rule) for rule in sorted(rules, key=stanza_name)}
    if len(found) != len(rules):
        raise ValueError("two rules have the same title")
    return {**found, **_LISTS}


# Run once by hand: what the collection begins with.
_LISTS: dict[str, Stanza] = {
    "aitrail - Approved models: begin with the rules' list": {
        "description": "Fills the collection of approved models with the list that the rules know. Run once.",
        "search": "| inputlookup aitrail_approved_models_start\n| outputlookup aitrail_approved_models",
        "dispatch.earliest_time": "-1h",
        "dispatch.latest_time": "now",
        "is_scheduled": 0,
        "enableSched": 0,
    },
    "aitrail - Models in use that are not approved": {
        "description": "Models of the last 30 days whose name begins with none of the approved ones.",
        "search": (
            '`aitrail_index` sourcetype="ai:access:audit" model=*\n'
            "| `aitrail_dedup`\n"
            "| stats count AS calls, dc(user_id) AS users, max(_time) AS last BY tenant_id, model\n"
            "| lookup aitrail_approved_models model OUTPUT owner AS approved_by\n"
            "| where isnull(approved_by)\n"
            "| sort 0 -num(calls)"
        ),
        "dispatch.earliest_time": "-30d@d",
        "dispatch.latest_time": "now",
        "is_scheduled": 0,
        "enableSched": 0,
    },
}


def _app() -> dict[str, Stanza]:
    return {
        "id": {"name": APP, "version": __version__},
        "launcher": {
            "author": "The aitrail authors",
            "description": "Every access to an AI system: who, what, which model, what was asked, what came back.",
            "version": __version__,
        },
        "package": {"id": APP, "check_for_updates": 0},
        "install": {"is_configured": 0, "state": "enabled", "build": 1},
        "ui": {"is_visible": 1, "label": "aitrail: AI access audit", "setup_view": "settings"},
        "triggers": {"reload.aitrail": "simple"},
    }


def _manifest() -> bytes:
    manifest = {
        "schemaVersion": "2.0.0",
        "info": {
            "title": "aitrail: AI access audit",
            "id": {"group": None, "name": APP, "version": __version__},
            "author": [{"name": "The aitrail authors", "email": None, "company": None}],
            "releaseDate": None,
            "description": "Search-time knowledge, dashboards and detections for accesses to AI systems.",
            "classification": {
                "intendedAudience": "Security",
                "categories": ["Security, Fraud & Compliance"],
                "developmentStatus": "Production/Stable",
            },
            "commonInformationModels": {"Splunk_SA_CIM": ">=5.0.0"},
            "license": {"name": "Apache-2.0", "text": "LICENSE", "uri": None},
            "privacyPolicy": {"name": None, "text": None, "uri": None},
            "releaseNotes": {"name": "README", "text": "README.md", "uri": None},
        },
        "dependencies": None,
        "tasks": None,
        "inputGroups": None,
        "incompatibleApps": None,
        "platformRequirements": {"splunk": {"Enterprise": ">=9.2"}},
        "supportedDeployments": ["_standalone", "_distributed", "_search_head_clustering"],
        "targetWorkloads": ["_search_heads"],
    }
    return json.dumps(manifest, indent=2).encode() + b"\n"


def _macros() -> dict[str, Stanza]:
    return {
        "aitrail_index": {
            "definition": f"index={INDEX}",
            "description": "Where the events are: the one place of the index.",
            "iseval": 0,
        },
        "aitrail_dedup": {
            "definition": "eval event_id=mvindex(event_id, 0) | dedup event_id",
            "description": "Each event once, however often it was delivered.",
            "iseval": 0,
        },
        "aitrail_entity_risk(1)": {
            "args": "entity",
            "definition": "from datamodel:Risk.All_Risk | search normalized_risk_object=$entity$ | stats count, "
            "sum(calculated_risk_score) AS risk, values(source) AS rules BY normalized_risk_object",
            "description": "What Enterprise Security's risk index holds about an entity.",
            "iseval": 0,
        },
        "aitrail_checkpoints(1)": {
            "args": "tenant",
            "definition": '`aitrail_index` sourcetype="ai:access:chain" tenant_id=$tenant$ | dedup event_id '
            "| table _time, origin, size, root",
            "description": "Signed checkpoints of a tenant's ledger: what the events can be proven against.",
            "iseval": 0,
        },
    }


def _nav(content: Content) -> bytes:
    views = "\n".join(
        f'  <view name="{view_name(one)}"{" default=" + chr(34) + "true" + chr(34) if one.number == 1 else ""} />'
        for one in content.dashboards
    )
    return (
        f'<nav search_view="search" color="#172B4D">\n{views}\n'
        '  <collection label="Rules and hunts">\n'
        '    <saved source="unclassified" match="aitrail" />\n'
        '    <view name="reports" />\n    <view name="alerts" />\n  </collection>\n'
        '  <view name="search" />\n  <view name="setup_guide" />\n  <view name="settings" />\n</nav>\n'
    ).encode()


def _table(head: list[str], rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue().encode()


def _rules(content: Content) -> bytes:
    """Each rule with what to do, and how the rows of its search become findings (``bin/aitrail_finding.py``)."""
    rows = []
    for rule in sorted((*content.detections, *content.behaviors), key=lambda rule: rule.meta.name):
        meta, own = rule.meta, annotations(rule)
        kinds = [" ".join(own.get(key, ())) for key in ("mitre_attack", "mitre_atlas", "owasp_llm")]
        steps = ["\n".join(getattr(meta.response, phase)) for phase in PHASES]
        rows.append([meta.id, meta.name, meta.title, meta.severity, meta.kind, *kinds, *as_finding(rule), *steps])
    head = ["rule_id", "name", "title", "severity", "kind", "mitre_attack", "mitre_atlas", "owasp_llm"]
    return _table([*head, "atlas", "owasp", "grouped", "entities", "hold", "risk_score", *PHASES], rows)


def _approved() -> bytes:
    lines = content_path("watchlists", "approved_models.txt").read_text(encoding="utf-8").splitlines()
    known = sorted(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    return _table(["model", "owner", "remark"], [[f"{one}*", "the rules' list", ""] for one in known])


def archives(held: Files) -> dict[str, bytes]:
    """The package that is installed."""
    return {f"{APP}-{__version__}.spl": tar_gz(APP, held)}


PACK = Pack(
    folder="splunk_app/aitrail",
    emit=files,
    owned=("default/data/ui/views/aitrail_*.xml", "lookups/*.csv", "static/*.png"),
    archives=archives,
)
