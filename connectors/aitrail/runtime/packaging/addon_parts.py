"""What of other people's distributions goes into the Splunk add-on, and the one line of them that is changed.

Every script in a Splunk package is read by its reviewers and by AppInspect, so what no input imports stays out.
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping

from aitrail.contentdir import content_path
from aitrail.errors import ConfigError
from aitrail.runtime.packaging.tree import Files

# Asked for by others, and imported by nothing here: httpx's asynchronous face, and typing for Python before 3.13.
UNUSED = frozenset({"anyio", "typing-extensions"})
_UNUSED_PARTS = (
    *("splunklib/ai/", "splunklib/searchcommands/", "dateutil/zoneinfo/", "urllib3/contrib/emscripten/"),
    *("httpx/_main.py", "httpcore/_backends/trio.py"),
)
# Splunk Cloud takes no package that can send UDP. botocore's client-side monitoring does, when it is switched on in
# AWS's configuration; nothing here uses it. Text -> what stands for it; each is there exactly once.
_CHANGED: Mapping[str, Mapping[bytes, bytes]] = {
    "botocore/session.py": {
        b"        if self.get_config_variable('csm_enabled'):\n": (
            b"        # Changed for the add-on TA-aitrail: client-side monitoring is never on, since it sends UDP.\n"
            b"        if False:\n"
        ),
        b"socket=socket.socket(socket.AF_INET, socket.SOCK_DGRAM),": b"socket=None,",
    }
}
_NUMBERS = "stdnum/"
_LISTS = re.compile(rb"""numdb\.get\(['"]([a-z0-9_/]+)['"]""")


def kept(name: str, files: Files) -> Files:
    """The files of the distribution ``name`` that go in.

    Raises:
        ConfigError: the distribution is another than the one whose line is to be changed.
    """
    mine = {place: data for place, data in files.items() if not place.startswith(_UNUSED_PARTS)}
    if name == "python-stdnum":
        wanted = set(_numbers(mine))
        mine = {place: data for place, data in mine.items() if place in wanted or not place.startswith(_NUMBERS)}
    for place, changes in _CHANGED.items():
        if place in mine:
            mine[place] = _changed(place, mine[place], changes)
    return mine


def validators() -> list[str]:
    """What the shipped patterns name as validator, without those of aitrail (``classify.checks``)."""
    found: set[str] = set()
    for path in sorted(content_path("patterns", "leaks").glob("*.toml")):
        found |= set(_named(tomllib.loads(path.read_text(encoding="utf-8"))))
    return sorted(one for one in found if one and not one.startswith("own."))


def _named(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "check" and isinstance(inner, str):
                yield inner
            else:
                yield from _named(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner)


def _numbers(files: Files) -> Iterator[str]:
    """The modules of python-stdnum that the patterns name, with what those import and the lists that they read."""
    todo = [f"stdnum.{one}" for one in validators()]
    seen: set[str] = set()
    while todo:
        module = todo.pop()
        place = next((one for one in _places(module) if one in files), "")
        if module in seen or not place:
            continue
        seen.add(module)
        yield place
        todo.append(module.rpartition(".")[0])
        for node in ast.walk(ast.parse(files[place])):
            if isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                todo += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (f"{_NUMBERS}{one.decode()}.dat" for one in _LISTS.findall(files[place]))


def _places(module: str) -> tuple[str, str]:
    base = module.replace(".", "/")
    return f"{base}.py", f"{base}/__init__.py"


def _changed(place: str, data: bytes, changes: Mapping[bytes, bytes]) -> bytes:
    for before, after in changes.items():
        if data.count(before) != 1:
            hint = "look at what it does now, and mend addon_parts.py"
            raise ConfigError("is not the file that is changed here", where=place, hint=hint)
        data = data.replace(before, after)
    return data
