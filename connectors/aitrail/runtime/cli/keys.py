"""``aitrail keys``: rotate a tenant's hash key, erase a person's sealed content."""

from pathlib import Path

import click

from aitrail.errors import ConfigError
from aitrail.privacy.keys import KeyRing
from aitrail.privacy.sealing import Sealer
from aitrail.runtime.cli.options import confirmed, existing_store, store_option
from aitrail.runtime.cli.render import clean
from aitrail.secrets import Secrets

EPILOG = """\b
Examples:
  aitrail keys rotate acme                      new prompts are hashed under a new key
  aitrail keys erase acme ines.moreau --yes     her sealed prompts and answers become unreadable, for good
"""


@click.group(epilog=EPILOG)
def keys() -> None:
    """Look after the tenants' keys."""


@keys.command(epilog=EPILOG)
@click.argument("tenant")
@store_option
def rotate(tenant: str, store: Path) -> None:
    """Make a new hash key for TENANT. Older hashes stay checkable; equal prompts before and after do not compare."""
    ring = KeyRing(existing_store(store) / "keys", {}, Secrets())
    known = ring.tenants()
    if tenant not in known:
        raise ConfigError(
            f"tenant {tenant!r} has no key in this store",
            hint=f"there are keys of: {', '.join(known) or 'nobody'}; a key that aitrail.toml names is rotated there",
        )
    click.echo(f"tenant {tenant}: new key {ring.rotate(tenant)}; a running collector uses it after a restart")


@keys.command(epilog=EPILOG)
@click.argument("tenant")
@click.argument("user_id")
@store_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(tenant: str, user_id: str, store: Path, yes: bool) -> None:
    """Delete the key under which the content of USER_ID of TENANT is sealed. Cannot be undone."""
    directory = existing_store(store) / "keys"
    if not yes:
        confirmed(f"Erase all sealed content of {clean(user_id)} ({clean(tenant)}) for good?")
    sealer = Sealer(directory, KeyRing(directory, {}, Secrets()))
    try:
        if not sealer.erase(tenant, user_id.lower()):
            raise ConfigError(
                f"nothing is sealed for {user_id} of tenant {tenant}",
                hint="aitrail query 'select distinct user_id ...'",
            )
    finally:
        sealer.close()
    click.echo(f"erased: the sealed content of {user_id} ({tenant}) is unreadable from now on")
