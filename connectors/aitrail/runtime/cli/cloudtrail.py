"""``aitrail cloudtrail``: check CloudTrail's own proof of what it delivered."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec

from aitrail.clock import SystemClock
from aitrail.errors import ConfigError
from aitrail.runtime.cli.render import clean

EPILOG = """\b
Examples:
  aitrail cloudtrail verify --bucket acme-trail --start 2026-11-01
  aitrail cloudtrail verify ./copy-of-bucket --public-keys keys.json --all

\b
Verdicts of a log file: valid, mismatch (changed), missing (deleted), unsigned (no valid digest vouches for it),
pending (too new for a digest). Of a digest also: invalid, and gap (the chain starts anew: logging was stopped).
Exit code 1 when anything but valid and pending was found.
"""


@click.group(epilog=EPILOG)
def cloudtrail() -> None:
    """Look after CloudTrail trails."""


@cloudtrail.command(epilog=EPILOG)
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--bucket", default="", help="Bucket of the trail, instead of a DIRECTORY with a copy of it.")
@click.option("--prefix", default="", help="What keys start with before AWSLogs/, with its slash.")
@click.option("--account", "accounts", multiple=True, help="Only this account (may be repeated).")
@click.option("--start", default="", help="Only digests and log files from this time on, e.g. 2026-11-01.")
@click.option("--end", default="", help="Only digests and log files before this time.")
@click.option("--region", default="", help="Region of the bucket; by default the environment's.")
@click.option("--profile", default="", help="Profile of the AWS configuration.")
@click.option("--role-arn", default="", help="Role to assume.")
@click.option("--external-id", default="", help="External id for the role.")
@click.option("--endpoint-url", default="", help="URL of a private endpoint.")
@click.option(
    "--public-keys",
    default="",
    type=click.Path(dir_okay=False),
    help="PEM file, or the output of `aws cloudtrail list-public-keys`; by default CloudTrail is asked.",
)
@click.option("--offline", is_flag=True, help="With a DIRECTORY: ask AWS for nothing; needs --public-keys.")
@click.option("--allow-gaps", is_flag=True, help="A chain that starts anew is no fault (logging was stopped).")
@click.option("--all", "show_all", is_flag=True, help="Also list what is valid.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per file, and the counts at the end.")
def verify(
    directory: Path | None, bucket: str, prefix: str, *, show_all: bool, as_json: bool,
    allow_gaps: bool, start: str, end: str, **options: Any,
) -> None:  # fmt: skip
    """Check digests, signatures and log files of a trail, in its bucket or in a DIRECTORY with a copy of it."""
    if bool(bucket) == (directory is not None):
        raise ConfigError(
            "name one place", where="cloudtrail verify", hint="give --bucket NAME, or a directory with a copy"
        )
    counts: Counter[str] = Counter()
    wrong = 0
    try:
        from aitrail.sources._aws_times import parse_time  # noqa: PLC0415 - only this command needs the AWS packages
        from aitrail.sources.cloudtrail_verify import GOOD, Finding, Verifier  # noqa: PLC0415

        store = _store(directory, bucket, prefix, **options)
    except ImportError as error:
        raise ConfigError(
            f"this needs a package that is not installed ({error.name})", hint="pip install 'aitrail[aws]'"
        ) from None
    verifier = Verifier(store, start=parse_time(start, "--start"), end=parse_time(end, "--end") or float("inf"))
    findings: Iterable[Finding] = verifier.findings()
    for finding in findings:
        counts[f"{finding.kind}.{finding.verdict}"] += 1
        bad = finding.verdict not in GOOD and not (allow_gaps and finding.verdict == "gap")
        wrong += bad
        if as_json:
            click.echo(msgspec.json.encode(finding))
        elif bad or show_all:
            reason = f"  ({finding.reason})" if finding.reason else ""
            click.echo(f"{finding.verdict:<9} {finding.kind:<6} {clean(finding.origin)}{reason}")
    _summary(counts, as_json=as_json)
    if not counts:
        raise ConfigError("no digest and no log file was found", hint="correct bucket, prefix, account or times")
    click.get_current_context().exit(1 if wrong else 0)


def _summary(counts: Counter[str], *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode({"counts": dict(sorted(counts.items()))}))
        return
    for kind, name in (("digest", "digests"), ("log", "log files")):
        parts = [f"{count} {key.partition('.')[2]}" for key, count in sorted(counts.items()) if key.startswith(kind)]
        click.echo(f"{name}: {', '.join(parts) or 'none'}")


def _store(
    directory: Path | None, bucket: str, prefix: str, *, accounts: tuple[str, ...], region: str, profile: str,
    role_arn: str, external_id: str, endpoint_url: str, public_keys: str, offline: bool,
) -> Any:  # fmt: skip
    """Where to look."""
    from aitrail.sources._aws_calls import Access, Aws  # noqa: PLC0415
    from aitrail.sources._aws_settings import OneRole  # noqa: PLC0415
    from aitrail.sources._cloudtrail_stores import BucketStore, DirectoryStore, KeyService  # noqa: PLC0415

    if offline and not public_keys:
        raise ConfigError(
            "without AWS the public keys must come from a file", where="--offline", hint="--public-keys FILE"
        )
    identity = OneRole(profile=profile, external_id=external_id, endpoint_url=endpoint_url)
    aws = Aws(Access.of(identity, role_arn), SystemClock())
    keys = KeyService(None if offline else aws, public_keys)
    if directory is not None:
        return DirectoryStore(directory, prefix, keys)
    return BucketStore(aws, aws.region(region), bucket, prefix, keys, accounts)
