"""Draw the pages of the Splunk app in Chromium with Splunk's own packages, from the demo's events; check what is drawn.

Usage: render.py PACKAGES [PICTURES]. PACKAGES holds node_modules (``.ci/splunk``); with PICTURES, PNG files are made.
Every search is run by the tests' engine, so what is drawn is what the SPL gives. Exits 1 when a definition does not fit
Splunk's schema, an option is unknown, or a panel is missing or shows an error.
"""

import html
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
from click.testing import CliRunner

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from aitrail.event import AccessEvent  # noqa: E402
from aitrail.runtime import present  # noqa: E402
from aitrail.runtime.cli import cli  # noqa: E402
from aitrail.store.queries import fetch  # noqa: E402
from aitrail.store.reader import StoreReader, canonical_time  # noqa: E402
from parity.splunk_display import plain, shown  # noqa: E402
from parity.splunk_engine import Row, indexed  # noqa: E402

VIEWS = HERE.parents[1] / "splunk_app" / "aitrail" / "default" / "data" / "ui" / "views"
DAY = 86_400
# What only a Splunk web server can draw: the choice of a time range.
OUTSIDE = "Cannot access splunkweb."


def main() -> int:
    """Draw all pages; say what is wrong."""
    packages = Path(sys.argv[1]).resolve()
    pictures = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        esbuild = packages / "node_modules" / ".bin" / "esbuild"
        (packages / "page.jsx").write_bytes((HERE / "page.jsx").read_bytes())
        options = ["--bundle", "--loader:.js=jsx", "--define:global=window", "--log-level=error"]
        options += ['--define:process.env.NODE_ENV="production"', f"--outfile={work / 'page.js'}"]
        subprocess.run([str(esbuild), "page.jsx", *options], cwd=packages, check=True)
        schema = _schema(work)
        rows = _rows(work / "demo", big=pictures is not None)
        problems = []
        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(lambda path: list(_page(path, work, schema, rows, pictures)), _studio_pages()):
                problems += found
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _studio_pages() -> list[Path]:
    """All but the settings page, which is a form of a script."""
    return sorted(path for path in VIEWS.iterdir() if path.stem != "settings")


def _page(path: Path, work: Path, schema: Any, rows: dict[str, list[Row]], pictures: Path | None) -> Iterator[str]:
    definition = json.loads(re.search(r"CDATA\[(.*)\]\]", path.read_text(encoding="utf-8"), re.DOTALL)[1])  # type: ignore[index]
    yield from (f"{path.stem}: {problem}" for problem in _misfits(definition, schema))
    if path.stem == "setup_guide":
        return
    filled = _filled(definition, rows)
    if pictures:
        filled["inputs"]["input_time"] = _TIME
    drawn = _page_file(path.stem, filled, work)
    tall = max(block["position"]["y"] + block["position"]["h"] for block in definition["layout"]["structure"]) + 130
    found = list(_undrawn(path.stem, definition, filled, _chromium(drawn, tall, "--dump-dom")))
    # A browser that was too slow for its budget of time gets a second chance; a page that is wrong stays wrong.
    yield from (_undrawn(path.stem, definition, filled, _chromium(drawn, tall, "--dump-dom")) if found else ())
    if pictures:
        _chromium(drawn, tall, f"--screenshot={pictures / path.stem}.png")


def _undrawn(name: str, definition: Any, filled: Any, page: str) -> Iterator[str]:
    """What the page should show and does not."""
    body = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    errors = re.findall(r'data-test-type="error".{0,900}?data-test="content"[^>]*>([^<]*)', body, re.DOTALL)
    yield from (f"{name}: {error}" for error in errors if error != OUTSIDE)
    texts = html.unescape(re.sub(r"<[^>]+>", " ", body))
    for item in definition["visualizations"].values():
        if item.get("title") and item["title"] not in texts:
            yield f"{name}: {item['title']!r} is not drawn"
    # A chart of nothing has no axes.
    charts = [item for item in definition["visualizations"].values() if item["type"] in _CHARTS]
    charts = [
        item for item in charts if filled["dataSources"][item["dataSources"]["primary"]]["options"]["data"]["columns"]
    ]
    if body.count("highcharts-root") < len(charts):
        yield f"{name}: a chart is not drawn"
    if "###" in texts:
        yield f"{name}: a number has no value"


# In pictures: what a Splunk web server would draw there.
_TIME = {
    "type": "input.dropdown",
    "title": "Time",
    "options": {"token": "t", "items": [{"label": "Last 7 days", "value": "7d"}], "defaultValue": "7d"},
}
_CHARTS = ("splunk.line", "splunk.area", "splunk.column", "splunk.bar", "splunk.pie")


def _page_file(name: str, definition: Any, work: Path) -> Path:
    text = json.dumps(definition).replace("</", "<\\/")
    page = work / f"{name}.html"
    page.write_text(
        '<!doctype html><meta charset="utf-8"><body style="margin:0;background:#111215"><div id="root"></div>'
        f"<script>window.definition={text}</script><script src='page.js'></script>",
        encoding="utf-8",
    )
    return page


def _chromium(page: Path, tall: int, *what: str) -> str:
    # A profile of its own: two browsers do not share one.
    with tempfile.TemporaryDirectory() as profile:
        command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--allow-file-access-from-files", f"--user-data-dir={profile}", f"--window-size=1480,{tall}"]
        command += ["--virtual-time-budget=15000", *what, page.as_uri()]
        done = subprocess.run(command, capture_output=True, timeout=180, check=True)
    return done.stdout.decode("utf-8", "replace")


def _schema(work: Path) -> Any:
    page = _chromium(_page_file("schema", None, work), 800, "--dump-dom")
    text = re.search(r'<div id="root">(.*?)</div>', page, re.DOTALL)
    assert text is not None, "the schema could not be made"
    return json.loads(html.unescape(text[1]))


def _misfits(definition: Any, schema: Any) -> Iterator[str]:
    """What does not fit the schema, whose layout is that of pages with tabs, and options that it does not know."""
    layout = {key: definition["layout"][key] for key in ("type", "options", "structure")}
    tabs = {"items": [{"layoutId": "one", "label": "One"}]}
    whole = {"tabs": tabs, "layoutDefinitions": {"one": layout}, "globalInputs": definition["layout"]["globalInputs"]}
    for error in jsonschema.Draft7Validator(schema).iter_errors({**definition, "layout": whole}):
        yield f"{'/'.join(map(str, error.path))}: {error.message[:200]}"
    known: dict[str, set[str]] = {}
    _options(schema, known)
    for name, item in definition["visualizations"].items():
        for option in item.get("options", {}):
            if option not in known[item["type"]]:
                yield f"{name}: {item['type']} has no option {option}"


def _options(node: Any, known: dict[str, set[str]]) -> None:
    if isinstance(node, dict):
        kind = node.get("if", {}).get("properties", {}).get("type", {}).get("const") if "then" in node else None
        if kind:
            options = node["then"].get("properties", {}).get("options", {})
            known.setdefault(kind, set()).update(options.get("properties", {}))
        for part in node.values():
            _options(part, known)
    elif isinstance(node, list):
        for part in node:
            _options(part, known)


# --- what the searches give


def _rows(folder: Path, *, big: bool) -> dict[str, list[Row]]:
    """The demo's events, findings and reports as Splunk would hold them."""
    size = ["--events", "2400", "--days", "7"] if big else ["--events", "700"]
    done = CliRunner().invoke(cli, ["demo", "--dir", str(folder), *size])
    assert done.exit_code == 0, done.output
    store = folder / "store"
    connection = StoreReader(store, health=present.of(store)).connect()
    own = set(AccessEvent.__struct_fields__)
    tables = {"ai:access:audit": "events", "ai:access:alert": "finding_records", "ai:access:health": "health_records"}
    found: dict[str, list[Row]] = {}
    for sourcetype, table in tables.items():
        found[sourcetype] = []
        for row in fetch(connection, f"SELECT * FROM {table}").dicts():
            event = {name: _plain(item) for name, item in row.items() if item not in (None, "", [])}
            event = {name: item for name, item in event.items() if table != "events" or name in own}
            found[sourcetype].append(indexed(event, _seconds(event["timestamp"]), sourcetype))
    # Reports are made when the demo runs, its events on a day of their own.
    newest = max(row["_time"] for row in found["ai:access:audit"])
    for row in found["ai:access:health"]:
        row["_time"] = newest
    return found


def _plain(item: Any) -> Any:
    return canonical_time(item) if isinstance(item, datetime) else item


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _filled(definition: dict[str, Any], rows: dict[str, list[Row]]) -> dict[str, Any]:
    """The definition with results in place of searches."""
    newest = max(row["_time"] for row in rows["ai:access:audit"]) + 1
    oldest = min(row["_time"] for row in rows["ai:access:audit"])
    # Half of what there is, so that there is something before it.
    since = newest - max((newest - oldest) / 2, DAY / 2)
    sources = {}
    for name, source in definition["dataSources"].items():
        query = re.sub(r"\$[\w.]+\|s\$", '"*"', source["options"]["query"]).replace("$$", "$")
        sourcetype = re.search(r'sourcetype="([^"]+)"', query)
        assert sourcetype is not None
        result = shown(query, rows[sourcetype[1]], (since, newest))
        fields = list(dict.fromkeys(field for row in result for field in row))
        columns = [[_cell(field, row.get(field)) for row in result] for field in fields]
        data = {"fields": [{"name": field} for field in fields], "columns": columns}
        sources[name] = {"type": "ds.test", "options": {"data": data, "meta": {"totalCount": len(result)}}}
    return {**{key: item for key, item in definition.items() if key != "defaults"}, "dataSources": sources}


def _cell(field: str, item: Any) -> Any:
    return datetime.fromtimestamp(item, UTC).isoformat() if field == "_time" else plain(item)


if __name__ == "__main__":
    sys.exit(main())
