"""``aitrail console``: the store in a browser."""

import webbrowser
from pathlib import Path
from typing import get_args

import click
from rich.text import Text

from aitrail.event import ContentMode
from aitrail.runtime.cli.options import existing_store, store_option
from aitrail.runtime.cli.render import clean
from aitrail.runtime.cli.render import console as make_console
from aitrail.runtime.console import make_app
from aitrail.runtime.console import serve as run_server
from aitrail.web.console.settings import PORT, ConsoleSettings, checked

EPILOG = """\b
Examples:
  aitrail console                                  http://127.0.0.1:8642, this machine only
  aitrail console --store /var/lib/aitrail --port 0 --open
  aitrail console --content none                   no text and no hash of a prompt is shown
  aitrail console --host 0.0.0.0 --token-file token --tls-certificate c.pem --tls-key k.pem

\b
It only reads, at the same time as `aitrail run` writes. Other users of this machine can reach it on loopback, too:
--token-file asks them for a token. A token: python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > token
"""
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog=EPILOG)
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--content",
    type=click.Choice(get_args(ContentMode)),
    default="redacted",
    show_default=True,
    help="Texts that are kept above this content mode are masked or hidden.",
)
@click.option("--token-file", type=_FILE, help="File with the token that viewers log in with; needed beyond loopback.")
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="A host name that the console is called by; repeatable.",
)
@click.option("--tls-certificate", type=_FILE, help="PEM file with the certificate chain.")
@click.option("--tls-key", type=_FILE, help="PEM file with its key.")
@click.option("--behind-tls-proxy", is_flag=True, help="A proxy in front does TLS: listen without beyond loopback.")
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
def console(
    store: Path,
    host: str,
    port: int,
    content: ContentMode,
    token_file: Path | None,
    names: tuple[str, ...],
    tls_certificate: Path | None,
    tls_key: Path | None,
    behind_tls_proxy: bool,
    show: bool,
) -> None:
    """Look at the store in a browser: dashboards, findings, events and the evidence, until stopped."""
    settings = checked(
        host=host,
        port=port,
        content=content,
        token_file=token_file,
        names=names,
        certificate=tls_certificate,
        key=tls_key,
        behind_tls_proxy=behind_tls_proxy,
    )
    show_store(store, settings, browser=show)


def show_store(store: Path, settings: ConsoleSettings, *, browser: bool, page: str = "") -> None:
    """Serve the console until stopped; with ``browser`` also open it there."""
    screen = make_console(stderr=True)

    def ready(url: str) -> None:
        where = clean(str(store))
        screen.print(Text.assemble(f"console of {where}: ", (url + page, "bold"), "  (Ctrl-C ends it)"), soft_wrap=True)
        if browser:
            webbrowser.open(url + page)

    run_server(make_app(existing_store(store), settings), settings, ready=ready)
