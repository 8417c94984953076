"""What ``aitrail console`` is told, and what is checked before it listens."""

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from aitrail.errors import ConfigError
from aitrail.event import ContentMode
from aitrail.web.settings import is_loopback

PORT = 8642
# A token that can be guessed is none: 128 bits in any usual spelling have so many characters.
MIN_TOKEN = 20
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class ConsoleSettings(Struct, frozen=True):
    """Checked settings of one console.

    Attributes:
        content: texts above this content mode are masked or hidden from the viewer.
        token: what a viewer has to show; empty: nobody is asked (loopback only).
        names: host names by which it may be called, besides ``localhost`` and plain addresses.
        secure: whether the viewer's browser speaks TLS with it (directly or through a proxy).
    """

    host: str = "127.0.0.1"
    port: int = PORT
    content: ContentMode = "redacted"
    token: str = ""
    names: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    secure: bool = False


def checked(
    *,
    host: str,
    port: int,
    content: ContentMode,
    token_file: Path | None,
    names: Sequence[str] = (),
    certificate: Path | None = None,
    key: Path | None = None,
    behind_tls_proxy: bool = False,
) -> ConsoleSettings:
    """Check the options together.

    Raises:
        ConfigError: names the option and the fix; above all when others could reach the console without a token.
    """
    loopback = is_loopback(host)
    token = _token(token_file) if token_file else ""
    if bool(certificate) != bool(key):
        raise ConfigError("TLS needs both files", where="--tls-certificate, --tls-key", hint="give both or none")
    if not loopback and not token:
        raise ConfigError(
            f"listening on {host} without a token would show everything to everybody who reaches it",
            where="--host",
            hint="write a long random token to a file that only you can read, and give --token-file FILE",
        )
    if not loopback and not certificate and not behind_tls_proxy:
        raise ConfigError(
            f"listening on {host} without TLS would let the token and prompts be read on the way",
            where="--host",
            hint="give --tls-certificate and --tls-key, or --behind-tls-proxy when a proxy in front does TLS",
        )
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no host name", where="--allow-host", hint="for example: audit.example.com")
    called = [*names] if _is_address(host) else [*names, host]
    return ConsoleSettings(
        host=host,
        port=port,
        content=content,
        token=token,
        names=tuple(name.lower() for name in called),
        certificate=str(certificate or ""),
        key=str(key or ""),
        secure=bool(certificate) or behind_tls_proxy,
    )


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path} cannot be read", where="--token-file", hint="a text file with one token") from None
    if mode & 0o077:
        raise ConfigError(
            f"{path} can be read by others than its owner", where="--token-file", hint=f"chmod 600 {path}"
        )
    if len(token) < MIN_TOKEN or any(char.isspace() for char in token):
        raise ConfigError(
            f"the token has fewer than {MIN_TOKEN} characters, or spaces",
            where="--token-file",
            hint="for example: python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > token",
        )
    return token


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
