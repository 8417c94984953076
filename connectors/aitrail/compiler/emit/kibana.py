"""The Elastic pack: what of ``kibana_dashboards`` is made from the content and the field catalog.

Twice the same dashboards, rules and hunts: as files for Kibana's import, with a data view of their own, and as a
package of type ``content`` (package-spec), which uses the view that Fleet makes. Beside them what Elasticsearch is
given.
"""

from aitrail import __version__
from aitrail.compiler.emit import Content, Files, Pack
from aitrail.compiler.emit.archive import zipped
from aitrail.compiler.emit.elastic_files import files as elasticsearch
from aitrail.compiler.emit.kibana_dashboards import dashboard, views
from aitrail.compiler.emit.kibana_objects import FLEET_VIEW, PREFIX, Saved, compact, decoded, line, pretty
from aitrail.compiler.emit.kibana_rules import Any_, detection, hunt, is_rule, packaged, summary

FOLDER = "kibana_dashboards"
FORMAT, KIBANA = "3.5.0", "^8.19.0 || ^9.1.0"
_CHANGES = "https://raw.githubusercontent.com/aitrail/aitrail/main/CHANGELOG.md"


def files(content: Content) -> dict[str, bytes]:
    """The files that are made, by path below the pack."""
    return {**_imports(content), **_package(content), **elasticsearch()}


def rules(content: Content) -> list[Any_]:
    """What becomes a detection rule, by name."""
    return [rule for rule in _all(content) if is_rule(rule)]


def hunts(content: Content) -> list[Any_]:
    """What becomes a Discover session, by name."""
    return [rule for rule in _all(content) if not is_rule(rule)]


def _all(content: Content) -> list[Any_]:
    return sorted((*content.detections, *content.behaviors), key=lambda rule: rule.meta.name)


def _lines(texts: list[str]) -> bytes:
    return ("\n".join(texts) + "\n").encode()


def _imports(content: Content) -> dict[str, bytes]:
    pages = content.dashboards
    saved = [*views(), *(dashboard(one, pages) for one in pages)]
    return {
        "import/dashboards.ndjson": _lines(list(map(line, saved))),
        "import/hunts.ndjson": _lines([line(one) for one in (*views()[1:], *map(hunt, hunts(content)))]),
        "import/rules.ndjson": _lines([compact(detection(rule)) for rule in rules(content)]),
    }


def _package(content: Content) -> dict[str, bytes]:
    pages = content.dashboards
    saved = [*(dashboard(one, pages, FLEET_VIEW) for one in pages), *map(hunt, hunts(content))]
    own = {f"package/kibana/{one.type}/{_file(one)}.json": pretty(decoded(_untagged(one))) for one in saved}
    held = [packaged(rule) for rule in rules(content)]
    own |= {f"package/kibana/security_rule/{one['id']}.json": pretty(one) for one in held}
    return {
        **own,
        "package/manifest.yml": _manifest(),
        "package/changelog.yml": _changelog(),
        "package/docs/README.md": _readme(content),
        "package/kibana/tags.yml": b"- text: aitrail\n  asset_types:\n    - dashboard\n    - search\n",
    }


def _untagged(one: Saved) -> Saved:
    """In a package ``tags.yml`` gives the tags."""
    return Saved(one.type, one.id, one.attributes, tuple(ref for ref in one.references if ref["type"] != "tag"))


def _file(one: Saved) -> str:
    """A package's object is called after the package and its file after the object."""
    return one.id


def _manifest() -> bytes:
    return f"""\
format_version: {FORMAT}
name: {PREFIX}
title: "aitrail: AI access audit"
version: {__version__}
description: Dashboards, detection rules and hunts for accesses to AI systems that aitrail collects.
type: content
source:
  license: Apache-2.0
categories:
  - security
conditions:
  kibana:
    version: "{KIBANA}"
  elastic:
    subscription: basic
    capabilities:
      - security
discovery:
  datasets:
    - name: ai_audit.access
    - name: ai_audit.finding
    - name: ai_audit.health
owner:
  github: aitrail/aitrail
  type: community
""".encode()


def _changelog() -> bytes:
    return f"""\
- version: {__version__}
  changes:
    - description: Six dashboards, detection rules and hunts.
      type: enhancement
      link: {_CHANGES}
""".encode()


def _readme(content: Content) -> bytes:
    pages = "\n".join(f"- {one.title}: {len(one.panels)} panels" for one in content.dashboards)
    return f"""\
# aitrail: AI access audit

Dashboards, detection rules and hunts over the data streams `logs-ai_audit.*`, which the collector aitrail fills with
one event per access to an AI system. The package has no inputs: install the collector, then its index templates
(`aitrail elastic install`), then this package.

## Dashboards

{pages}

## Hunts

{len(hunts(content))} Discover sessions, "[aitrail] Hunt: ...".

## Rules

All are disabled until you enable them; each says under Setup which records it needs.

{summary(rules(content))}""".encode()


def archives(held: Files) -> dict[str, bytes]:
    """The package as Kibana takes it, the import files by themselves, and everything in one archive."""
    package = {path.partition("/")[2]: data for path, data in held.items() if path.startswith("package/")}
    name = f"{PREFIX}-{__version__}"
    everything = {path: data for path, data in held.items() if not path.startswith("package/")}
    imports = {
        f"{name}-elastic-{path.partition('/')[2]}": data for path, data in held.items() if path.startswith("import/")
    }
    return {
        f"{name}-elastic-package.zip": zipped(package, name),
        f"{name}-elastic.zip": zipped(everything, f"{name}-elastic"),
        **imports,
    }


PACK = Pack(
    folder=FOLDER,
    emit=files,
    owned=("import/*.ndjson", "elasticsearch/*/*.json", "elasticsearch/*/*/*.json", "package/kibana/*/*.json"),
    archives=archives,
)
