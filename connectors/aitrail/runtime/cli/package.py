"""``aitrail package``: a function's zip, with only what its sources and destinations need; or Splunk's add-on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from aitrail.errors import ConfigError
from aitrail.runtime.cli.render import clean
from aitrail.runtime.packaging.build import Built, Options, Plan, build, plan
from aitrail.runtime.packaging.targets import ARCHITECTURES, TARGETS, choose

EPILOG = """\b
Examples:
  aitrail package lambda --destinations splunk
  aitrail package lambda --config aitrail.toml --arch arm64 --out aitrail-arm64.zip
  aitrail package function --sources event_hubs --destinations sentinel
  aitrail package lambda --destinations splunk --lock aitrail.lock     (the same versions again)
  aitrail package lambda --destinations splunk --dry-run               (say what it would hold)
  aitrail package splunk                                               (dist/TA-aitrail-VERSION.spl; a source tree)

\b
Beside the zip: OUT.sha256, and OUT.cdx.json (CycloneDX 1.6: every distribution with its version, licence and hash).
In it: the same document, and aitrail-package/SHA256SUMS for `sha256sum --check`. The same input gives the same bytes.
deploy/aws/template.yaml and deploy/azure take it as it is: docs/deploy-aws.md, docs/deploy-azure.md.
`splunk` is the add-on with all its inputs, for both processors, from the locks splunk_app/TA-aitrail-*.lock; of the
options only --out, --wheels, --dry-run and --json are for it: docs/install-splunk.md.
"""


# Azure Functions has no plan on arm64.
_USUAL = {"lambda": "arm64", "function": "x86_64"}
_SPLUNK = "splunk"
_FOR_SPLUNK = frozenset({"target", "out", "wheels", "dry_run", "as_json"})


def _names(context: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    del context, option
    return tuple(dict.fromkeys(one.strip() for one in value.split(",") if one.strip()))


@click.command("package", epilog=EPILOG)
@click.argument("target", type=click.Choice([*TARGETS, _SPLUNK]))
@click.option("--sources", callback=_names, default="", help="Types of sources, by commas; default: the usual three.")
@click.option("--destinations", callback=_names, default="", help="Types of destinations, by commas.")
@click.option(
    "--config",
    "config_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take sources and destinations from this file, and put it, with the files that it names, into the package.",
)
@click.option(
    "--arch", type=click.Choice(list(ARCHITECTURES)), help="Processor; default: arm64, and x86_64 for Azure Functions."
)
@click.option("--python", default="3.13", show_default=True, help="Version of the runtime.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="The zip; default: aitrail-TARGET-ARCH.zip."
)
@click.option(
    "--lock",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Lock file: written when it is not there, else exactly its versions and hashes are taken.",
)
@click.option("--wheels", default="", help="Folder of wheels to take instead of asking the package index.")
@click.option("--interpreter", default="", help="Python of that version to compile with; default: one that is found.")
@click.option("--compile/--no-compile", "compile_", default=True, help="Put bytecode into it: faster cold starts.")
@click.option("--bundle-boto3", is_flag=True, help="lambda: bring boto3 along instead of using the runtime's.")
@click.option("--dry-run", is_flag=True, help="Say what it would hold; fetch and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def package(
    target: str, sources: tuple[str, ...], destinations: tuple[str, ...], config_path: Path | None, arch: str | None,
    python: str, out: Path | None, lock: Path | None, wheels: str, interpreter: str, *, compile_: bool,
    bundle_boto3: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Package aitrail for AWS Lambda, Azure Functions, or as an add-on of Splunk."""

    def say(text: str) -> None:
        if not as_json:
            click.echo(clean(text), err=True)

    if target == _SPLUNK:
        _addon(out, wheels, say, dry_run=dry_run, as_json=as_json)
        return
    options = Options(lock, wheels, compile_, interpreter, frozenset({"boto3"} if bundle_boto3 else ()))
    arch = arch or _USUAL[target]
    planned = plan(choose(target, sources, destinations, config_path, arch=arch, python=python), options)
    if dry_run:
        click.echo(json.dumps(_planned(planned)) if as_json else _plan_text(planned))
        return
    out = out or Path(f"aitrail-{target}-{arch}.zip")
    built = build(planned, options, out, say)
    if compile_ and not built.interpreter:
        say(f"no Python {python} is here, so there is no bytecode in it: cold starts take longer (--interpreter PATH)")
    click.echo(json.dumps(_built(built)) if as_json else _built_text(built))


def _addon(out: Path | None, wheels: str, say: Callable[[str], None], *, dry_run: bool, as_json: bool) -> None:
    """The add-on of Splunk; ``build`` knows what belongs to it."""
    from aitrail.runtime.packaging import addon  # noqa: PLC0415  (needs the extra)

    context = click.get_current_context()
    for name in context.params:
        if name not in _FOR_SPLUNK and context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            option = next(f"--{one.name}" for one in context.command.params if one.name == name)
            raise ConfigError("is not for the add-on of Splunk", where=option.replace("_", "-"), hint="leave it out")
    if dry_run:
        found = addon.needed()
        modules, asked = len(found.modules), addon.asked(sorted(found.imports))
        said = f"modules        {modules} of aitrail\ndistributions  {', '.join(asked)}"
        click.echo(json.dumps({"modules": modules, "requirements": asked}) if as_json else said)
        return
    built = addon.build(addon.SOURCE, out or addon.DIST / addon.file_name(), say, wheels=wheels)
    told = {"path": str(built.path), "sha256": built.sha256, "bytes": built.size, "unpacked_bytes": built.unpacked,
            "files": built.files, "distributions": built.wheels}  # fmt: skip
    lines = [
        f"{built.path}  {built.size / 1e6:.1f} MB ({built.unpacked / 1e6:.1f} MB unpacked, {built.files:,} files)",
        f"sha256  {built.sha256}",
        f"holds   {', '.join(f'{name} {version}' for name, version in sorted(built.wheels.items()))}",
    ]
    click.echo(json.dumps(told) if as_json else "\n".join(clean(line) for line in lines))


def _planned(planned: Plan) -> dict[str, Any]:
    choice = planned.choice
    return {
        "target": choice.target, "arch": choice.arch, "python": choice.python, "sources": choice.sources,
        "destinations": choice.destinations, "modules": len(planned.needed.modules),
        "requirements": planned.requirements, "provided": planned.provided, "files": sorted(choice.files()),
    }  # fmt: skip


def _plan_text(planned: Plan) -> str:
    choice = planned.choice
    lines = [
        f"target         {choice.target}, {choice.arch}, Python {choice.python}",
        f"sources        {', '.join(choice.sources)}",
        f"destinations   {', '.join(choice.destinations)}",
        f"modules        {len(planned.needed.modules)} of aitrail",
        f"distributions  {', '.join(planned.requirements)} (and what they need)",
        f"of the runtime {', '.join(planned.provided) or 'nothing'}",
        f"files          {', '.join(sorted(choice.files())) or 'none'}",
        "Nothing was fetched or written (--dry-run).",
    ]
    return "\n".join(clean(line) for line in lines)


def _built(built: Built) -> dict[str, Any]:
    return {
        "path": str(built.path), "sha256": built.sha256, "bytes": built.size, "unpacked_bytes": built.unpacked,
        "files": built.files, "sbom": str(built.sbom), "compiled": bool(built.interpreter),
        "distributions": {one.name: one.version for one in built.wheels},
    }  # fmt: skip


def _built_text(built: Built) -> str:
    named = ", ".join(f"{one.name} {one.version}" for one in built.wheels)
    lines = [
        f"{built.path}  {built.size / 1e6:.1f} MB ({built.unpacked / 1e6:.1f} MB unpacked, {built.files:,} files)",
        f"sha256  {built.sha256}",
        f"sbom    {built.sbom}",
        f"holds   {named}",
    ]
    return "\n".join(clean(line) for line in lines)
