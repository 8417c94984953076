"""From an input of ``inputs.conf`` to the collector's configuration: texts are given their types, secrets references.

Names of inputs become names of files and of ``storage/passwords`` entries, so they are plain.
"""

import os
import re
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import quote, urlsplit

from msgspec import Struct

from aitrail.config import Config, SourceConfig, TenantConfig, check_name
from aitrail.errors import ConfigError
from aitrail.event import ContentMode
from aitrail.runtime.scheduled.splunk_passwords import TENANT_KEY
from aitrail.splunk_schemes import INTERVAL, MASK, Arg, Scheme

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MODES: tuple[ContentMode, ...] = ("none", "hash", "redacted", "full")
_SPLIT = re.compile(r"[,\s]+")
# Never through a proxy: this machine, and where clouds keep credentials.
_NEAR = "127.0.0.1,localhost,::1,169.254.169.254,169.254.170.2,fd00:ec2::254"
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")


class Input(Struct, frozen=True):
    """One input as splunkd gives it.

    Attributes:
        scheme: its kind.
        name: behind ``SCHEME://``.
        values: its settings, stripped; what is empty is left out.
    """

    scheme: Scheme
    name: str
    values: Mapping[str, str]

    @property
    def stanza(self) -> str:
        """``SCHEME://NAME``."""
        return f"{self.scheme.name}://{self.name}"

    @property
    def interval(self) -> float:
        """Seconds between two runs."""
        try:
            return max(1.0, float(self.values.get("interval", "")))
        except ValueError:
            return float(INTERVAL)

    def entry(self, arg: str) -> str:
        """The name of the ``storage/passwords`` entry of a secret setting."""
        return f"{self.scheme.name}.{self.name}.{arg}"

    def secrets(self) -> dict[str, str]:
        """Secrets that stand in the input in the clear, by setting."""
        args = [one.name for one in self.scheme.args if one.kind == "secret"]
        return {one: self.values[one] for one in args if self.values.get(one, MASK) != MASK}


def read(scheme: Scheme, stanza: str, given: Mapping[str, Any]) -> Input:
    """Read an input; ``stanza`` may be without its scheme. Raises ``ConfigError``."""
    name = stanza.removeprefix(f"{scheme.name}://")
    if not _NAME.fullmatch(name):
        hint = "letters, digits, '.', '_' and '-', at most 64"
        raise ConfigError("the name of the input is not allowed", where=scheme.name, hint=hint)
    values = {key: value.strip() for key, value in given.items() if isinstance(value, str) and value.strip()}
    one = Input(scheme, name, values)
    for arg in scheme.args:
        if arg.required and arg.name not in values:
            raise ConfigError(f"{arg.name} is missing", where=one.stanza, hint=f"{arg.title}: {arg.description}")
    return one


def configuration(one: Input) -> Config:
    """The collector's configuration for an input: one source, one tenant. Raises ``ConfigError``."""
    values = one.values
    tenant, content = values.get("tenant", "default"), values.get("content", "redacted")
    wrong = check_name(tenant)
    if wrong:
        raise ConfigError("the tenant's name is not allowed", where=f"{one.stanza} tenant", hint=wrong)
    if content not in _MODES:
        raise ConfigError("there is no such mode", where=f"{one.stanza} content", hint=f"one of: {', '.join(_MODES)}")
    options = {arg.source_setting: _typed(one, arg) for arg in one.scheme.args if arg.source_setting in _set(one)}
    if one.scheme.credential == "token":
        options["token"] = f"splunk:{one.entry('secret')}"
        options |= {"ca_file": values["ca_file"]} if "ca_file" in values else {}
    kept = TenantConfig(content=content, key=f"splunk:{TENANT_KEY}")
    return Config(
        path="inputs.conf",
        tenants={"default": kept, tenant: kept},
        sources={one.name: SourceConfig(type=one.scheme.source, tenant=tenant, options=options)},
    )


def _set(one: Input) -> set[str]:
    return {arg.source_setting for arg in one.scheme.args if arg.source_setting and arg.name in one.values}


def _typed(one: Input, arg: Arg) -> Any:
    text = one.values[arg.name]
    if arg.kind == "list":
        return tuple(part for part in _SPLIT.split(text) if part)
    if arg.kind == "number":
        try:
            return int(text) if text.lstrip("-").isdecimal() else float(text)
        except ValueError:
            raise ConfigError("is no number", where=f"{one.stanza} {arg.name}", hint=arg.description) from None
    return text


def prepare(one: Input, secrets: Mapping[str, str], environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what the libraries read from the environment of this process: proxy, authorities, AWS keys.

    Args:
        one: the input; a process has one.
        secrets: its secrets by setting, empty for what is not stored.
        environment: where to set it.

    Raises:
        ConfigError: the proxy is no URL that may be used, or half of an AWS key is missing.
    """
    proxy = _proxy(one, secrets.get("proxy_password", ""))
    if proxy is not None:
        environment.update(dict.fromkeys(_PROXIES, proxy))
    before = environment.get("NO_PROXY", environment.get("no_proxy", ""))
    environment["NO_PROXY"] = environment["no_proxy"] = ",".join(part for part in (before, _NEAR) if part)
    if one.scheme.credential != "aws":
        return
    if "ca_file" in one.values:
        environment["AWS_CA_BUNDLE"] = one.values["ca_file"]
    key, secret = one.values.get("access_key_id", ""), secrets.get("secret", "")
    if bool(key) != bool(secret):
        hint = "both for a key of a user, neither for the role of this machine"
        raise ConfigError("access_key_id and secret belong together", where=one.stanza, hint=hint)
    if key:
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
            environment.pop(name, None)
        environment.update({"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret})


def _proxy(one: Input, password: str) -> str | None:
    """The proxy's URL with its user; empty: none; None: as the environment says."""
    given = one.values.get("proxy", "")
    if not given or given == "none":
        return "" if given else None
    where, hint = f"{one.stanza} proxy", "http://HOST:PORT; user and password have settings of their own"
    try:
        parts = urlsplit(given)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError("is no URL", where=where, hint=hint) from None
    if parts.scheme != "http" or not host or not port or parts.username or parts.password or parts.path.strip("/"):
        raise ConfigError("is not the address of an HTTP proxy alone", where=where, hint=hint)
    user = one.values.get("proxy_user", "")
    secret = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    return f"http://{secret}{f'[{host}]' if ':' in host else host}:{port}"
