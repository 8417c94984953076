"""The six pages as Dashboard Studio views (definition version 2 in an XML wrapper)."""

import json
import re
from typing import Any

from aitrail.compiler.boards import label
from aitrail.compiler.dashboard import GRID_COLUMNS, Dashboard, Panel, Section
from aitrail.compiler.dialects.metrics_spl import render
from aitrail.compiler.dialects.scope import Scope
from aitrail.compiler.emit.splunk_panels import APP, draw, reading
from aitrail.compiler.metric import Aggregate, Metric
from aitrail.schema.catalog import FieldInfo

WIDTH = 1440
ROW = 84
_HEADING, _INTRO = 48, 84
# Of text in a block as wide as the page: characters a line (few, to be safe), pixels a line and between paragraphs.
_LINE, _LINE_HEIGHT, _BETWEEN = 190, 18, 14
# An object or list of numbers and short texts: on one line.
_PLAIN = r"-?[\d.e-]+|true|false|\"[^\"\\\n]{0,60}\"|[\[{] [^\[\]{}\n]{0,80} [\]}]"
_SMALL = re.compile(rf"[\[{{](?:\n +(?:\"[\w.]+\": )?(?:{_PLAIN}),?)+\n +[\]}}]")
_MOST_CHOICES = 200
_TIMES = {86_400: "-24h@h", 7 * 86_400: "-7d@h", 30 * 86_400: "-30d@d"}


def view(dashboard: Dashboard) -> bytes:
    """The view: XML around the definition."""
    text = json.dumps(definition(dashboard), indent=1, ensure_ascii=False).replace("]]>", "]]\\u003e")
    for _ in range(2):
        text = _SMALL.sub(lambda found: re.sub(r"\n +", " ", found[0]), text)
    about = _escaped(_first_sentence(dashboard.description))
    return (
        f'<dashboard version="2" theme="dark">\n<label>{_escaped(dashboard.title)}</label>\n'
        f"<description>{about}</description>\n<definition><![CDATA[\n{text}\n]]></definition>\n</dashboard>\n"
    ).encode()


def view_name(dashboard: Dashboard) -> str:
    """Its name, and its file's."""
    return f"{APP}_{dashboard.name}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".") + "."


def definition(dashboard: Dashboard) -> dict[str, Any]:
    """What Studio reads."""
    scope = Scope(tuple(field.name for field in dashboard.filters))
    visualizations: dict[str, Any] = {"viz_about": _markdown(dashboard.description)}
    sources: dict[str, Any] = {}
    structure = [_block("viz_about", 0, 0, WIDTH, _INTRO)]
    down = _INTRO
    for number, section in enumerate(dashboard.sections, 1):
        heading = f"viz_section_{number}"
        visualizations[heading] = _markdown(f"## {section.title}")
        structure.append(_block(heading, 0, down, WIDTH, _HEADING))
        down += _HEADING
        for panel, across, row_down in _placed(section, down):
            drawn = draw(panel, scope)
            # No panel's name makes another's: all others begin with "ds_".
            names = {role: f"ds_{panel.id}" if role == "primary" else f"{role}_{panel.id}" for role in drawn.searches}
            sources |= {names[role]: _search(f"{panel.title} ({role})", text) for role, text in drawn.searches.items()}
            bound = {"dataSources": names} if names else {}
            visualizations[f"viz_{panel.id}"] = {**drawn.visualization, **bound}
            width, height = panel.width * WIDTH // GRID_COLUMNS, panel.height * ROW
            structure.append(_block(f"viz_{panel.id}", across, row_down, width, height))
        down = max(_bottom(item) for item in structure)
    panels = [panel for section in dashboard.sections for panel in section.panels if panel.query is not None]
    for name, text, height in _reading(panels):
        visualizations[name] = _markdown(text)
        structure.append(_block(name, 0, down, WIDTH, height))
        down += height
    inputs, choices = _inputs(dashboard)
    return {
        "title": dashboard.title,
        "description": _first_sentence(dashboard.description),
        "visualizations": visualizations,
        "dataSources": {**sources, **choices},
        "defaults": {
            "dataSources": {
                "ds.search": {
                    "options": {
                        "queryParameters": {"earliest": "$global_time.earliest$", "latest": "$global_time.latest$"}
                    }
                }
            }
        },
        "inputs": inputs,
        "layout": {
            "type": "grid",
            "options": {"width": WIDTH, "gutterSize": 8},
            "structure": structure,
            "globalInputs": list(inputs),
        },
    }


def _reading(panels: list[Panel]) -> list[tuple[str, str, int]]:
    """The end of the page: each panel explained; name, text and height of the blocks."""
    texts = [reading(panel) for panel in panels]
    lines = sum(-(-len(text) // _LINE) for text in texts)
    return [
        ("viz_reading", "## How to read each panel", _HEADING),
        ("viz_explained", "\n\n".join(texts), lines * _LINE_HEIGHT + len(texts) * _BETWEEN + _BETWEEN),
    ]


def _block(item: str, x: int, y: int, w: int, h: int) -> dict[str, Any]:
    return {"item": item, "type": "block", "position": {"x": x, "y": y, "w": w, "h": h}}


def _bottom(block: dict[str, Any]) -> int:
    position: dict[str, int] = block["position"]
    return position["y"] + position["h"]


def _placed(section: Section, down: int) -> list[tuple[Panel, int, int]]:
    """Panels row by row from the left; the widths of a row make the whole."""
    found, column, height = [], 0, 0
    for panel in section.panels:
        if column + panel.width > GRID_COLUMNS:
            down, column, height = down + height, 0, 0
        found.append((panel, column * WIDTH // GRID_COLUMNS, down))
        column, height = column + panel.width, max(height, panel.height * ROW)
    return found


def _markdown(text: str) -> dict[str, Any]:
    return {"type": "splunk.markdown", "options": {"markdown": text}}


def _search(name: str, text: str) -> dict[str, Any]:
    return {"type": "ds.search", "name": name, "options": {"query": text}}


def _inputs(dashboard: Dashboard) -> tuple[dict[str, Any], dict[str, Any]]:
    """The time range and the filters, each with the searches for its choices."""
    earliest = _TIMES.get(dashboard.range, f"-{dashboard.range}s@s")
    inputs: dict[str, Any] = {
        "input_time": {
            "type": "input.timerange",
            "title": "Time",
            "options": {"token": "global_time", "defaultValue": f"{earliest},now"},
        }
    }
    sources = {}
    for field in dashboard.filters:
        sources[f"ds_choices_{field.name}"] = _search(f"Choices of {field.name}", choices(field))
        inputs[f"input_{field.name}"] = _choice(field)
    return inputs, sources


def choices(field: FieldInfo) -> str:
    """The most frequent values of a field."""
    return render(Metric((Aggregate("events"),), by=(field,), top=_MOST_CHOICES), Scope(()))


def _choice(field: FieldInfo) -> dict[str, Any]:
    series = f'> primary | seriesByName("{field.name}")'
    return {
        "type": "input.multiselect",
        "title": label(field.name).removesuffix(" ID"),
        "options": {
            "token": field.name,
            "items": "> frame(label, value) | prepend(formattedStatics) | objects()",
            "defaultValue": ["*"],
            "clearDefaultOnSelection": True,
        },
        "context": {
            "formattedConfig": {"number": {"prefix": ""}},
            "formattedStatics": "> statics | formatByType(formattedConfig)",
            "statics": [["All"], ["*"]],
            "label": f'{series} | renameSeries("label") | formatByType(formattedConfig)',
            "value": f'{series} | renameSeries("value") | formatByType(formattedConfig)',
        },
        "dataSources": {"primary": f"ds_choices_{field.name}"},
    }
