"""Fingerprints of system prompts: from a prompt's text, or from the records of calls that carry it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from aitrail.classify.fingerprint import Fingerprints, keyed_runs, read_fingerprints
from aitrail.clock import SystemClock
from aitrail.config import Config, SourceConfig
from aitrail.errors import ConfigError
from aitrail.normalize.detect import Detector
from aitrail.normalize.outcome import Context, Fragment, Normalized
from aitrail.normalize.registry import NORMALIZERS
from aitrail.ports import Budget
from aitrail.privacy.keys import KeyRing
from aitrail.registry import make_source
from aitrail.runtime.dryrun import NoCursors

# Beyond so many runs an application's prompt varies with every call: fingerprints of that are no use.
MAX_RUNS = 100_000


def system_prompts(paths: Sequence[str], tenant: str) -> Iterator[tuple[str, str]]:
    """Application and system prompt of every call in the files ``paths``, each pair once."""
    source = make_source("files", SourceConfig(options={"paths": tuple(paths)}), Config(), SystemClock(), b"")
    detector = Detector()
    seen: set[tuple[str, str]] = set()
    for batch in source.fetch(NoCursors(), Budget()):
        context = Context(tenant_id=tenant, origin=batch.origin)
        for record in batch.records:
            kind = "" if record.error else detector.detect(record.data)
            for outcome in NORMALIZERS[kind](record.data, context) if kind else ():
                if not isinstance(outcome, Normalized | Fragment) or outcome.content is None or not outcome.event.app:
                    continue
                text = "\n".join(item.text for item in outcome.content.messages if item.role == "system")
                pair = (outcome.event.app.lower(), text)
                if text and pair not in seen:
                    seen.add(pair)
                    yield pair


def add(path: Path, found: Sequence[tuple[str, str]], ring: KeyRing, tenant: str) -> Fingerprints:
    """Add prompts to the file ``path`` (written anew when it is not there); gives what it holds then.

    Raises:
        ConfigError: the file is of another tenant or key, or cannot be read or written.
    """
    key_id, key = ring.active(tenant)
    kept = read_fingerprints(path) if path.exists() else Fingerprints(tenant, key_id)
    if (kept.tenant, kept.key_id) != (tenant, key_id):
        raise ConfigError(
            f"made for tenant {kept.tenant!r} with key {kept.key_id}, not for {tenant!r} with {key_id}",
            where=str(path),
            hint="write another file",
        )
    apps = {app: set(runs) for app, runs in kept.apps.items()}
    for app, text in found:
        runs = keyed_runs(text, key)
        if not runs:
            raise ConfigError(f"the system prompt of {app} is shorter than eight words", hint="plant a canary instead")
        apps.setdefault(app, set()).update(runs)
    large = sorted(app for app, runs in apps.items() if len(runs) > MAX_RUNS)
    if large:
        raise ConfigError(f"the system prompts of {', '.join(large)} differ too much from call to call")
    made = Fingerprints(tenant, key_id, {app: sorted(runs) for app, runs in sorted(apps.items())})
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1))
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", where=str(path)) from None
    return made
