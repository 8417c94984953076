"""Make template.yaml of the parts in source/: CloudFormation takes neither several files nor YAML aliases.

Run it after a change of a part:  python deploy/aws/build.py [--check]
"""

import sys
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
OUT = FOLDER / "template.yaml"
_HEAD = "# Made by deploy/aws/build.py of the parts in source/; change those.\n"


class Tagged:
    """A value with a short intrinsic function, e.g. ``!Sub``; kept as it was written."""

    def __init__(self, tag: str, value: Any) -> None:
        self.tag = tag
        self.value = value


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Write everything out."""
        return True


def _construct(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Tagged:
    if isinstance(node, yaml.ScalarNode):
        return Tagged(suffix, loader.construct_scalar(node))
    if isinstance(node, yaml.SequenceNode):
        return Tagged(suffix, loader.construct_sequence(node, deep=True))
    assert isinstance(node, yaml.MappingNode)
    return Tagged(suffix, loader.construct_mapping(node, deep=True))


def _represent(dumper: yaml.SafeDumper, data: Tagged) -> yaml.Node:
    tag = f"!{data.tag}"
    if isinstance(data.value, str):
        return dumper.represent_scalar(tag, data.value, style="|" if "\n" in data.value else None)
    if isinstance(data.value, list):
        return dumper.represent_sequence(tag, data.value, flow_style=all(isinstance(one, str) for one in data.value))
    return dumper.represent_mapping(tag, data.value)


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Loader.add_multi_constructor("!", _construct)
_Dumper.add_representer(Tagged, _represent)
_Dumper.add_representer(str, _text)


def load() -> dict[str, Any]:
    """The template as the parts say it, with ``Tagged`` values."""
    text = "\n".join(part.read_text(encoding="utf-8") for part in sorted((FOLDER / "source").glob("*.yaml")))
    found: dict[str, Any] = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    return found


def template() -> str:
    """The template's text."""
    return _HEAD + yaml.dump(load(), Dumper=_Dumper, sort_keys=False, width=110)


def main() -> int:
    """Write it, or with --check say whether it is as it should be."""
    text = template()
    if "--check" in sys.argv[1:]:
        if not OUT.exists() or OUT.read_text(encoding="utf-8") != text:
            print(f"{OUT} is not what its parts say: run python deploy/aws/build.py")
            return 1
        return 0
    OUT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
