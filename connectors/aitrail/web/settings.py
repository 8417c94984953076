"""What ``[serve]``, ``[receivers.NAME]`` and ``[respond]`` may say, and what is checked before anything listens."""

import ipaddress
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from aitrail.config import Config, check_name
from aitrail.errors import ConfigError
from aitrail.normalize.registry import NORMALIZERS
from aitrail.secrets import check_reference

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_PATH = re.compile(r"/[A-Za-z0-9._~/-]{0,200}")
RESPONSE_PATHS = ("/v1/response/case", "/v1/response/block")
# Paths of the server itself.
RESERVED = frozenset({"/health", "/metrics", *RESPONSE_PATHS})


class ServeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[serve]``: where ``aitrail serve`` listens and what it takes at once."""

    host: Annotated[str, Meta(description="Address to listen on; the default is this machine alone.")] = "127.0.0.1"
    port: Annotated[int, Meta(description="Port; 0 takes a free one and says which.", ge=0, le=65535)] = 8088
    tls_certificate: Annotated[str, Meta(description="PEM file with the server's certificate chain.")] = ""
    tls_key: Annotated[str, Meta(description="PEM file with its key.")] = ""
    client_ca: Annotated[
        str, Meta(description="PEM file of authorities; clients must then show a certificate of one of them.")
    ] = ""
    behind_tls_proxy: Annotated[
        bool, Meta(description="Allow listening without TLS on other addresses than this machine's: a proxy does TLS.")
    ] = False
    max_connections: Annotated[int, Meta(description="Connections at once; more are answered 503.", ge=1)] = 1024
    max_waiting_mb: Annotated[
        int, Meta(description="MiB of bodies that may wait to be made durable; beyond it senders get 503.", ge=1)
    ] = 256
    read_seconds: Annotated[
        float, Meta(description="A request whose headers or body take longer is given up (408).", gt=0)
    ] = 30.0
    grace_seconds: Annotated[
        float, Meta(description="How long a stop waits for requests in hand and for destinations.", ge=0)
    ] = 10.0
    metrics_tokens: Annotated[
        tuple[str, ...], Meta(description="References to bearer tokens that /metrics asks for; empty: open.")
    ] = ()


class HmacSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[receivers.NAME.hmac]``: HMAC-SHA-256 over ``id.timestamp.body`` (without ``id.`` when there is no id header).

    The defaults are those of Standard Webhooks.
    """

    secrets: Annotated[
        tuple[str, ...],
        Meta(description="References to the shared secrets; several while one is replaced. `whsec_...` is base64."),
    ] = ()
    signature_header: Annotated[
        str, Meta(description="Header with the signatures, hex or base64, with or without `v1,`, `v1=`, `sha256=`.")
    ] = "webhook-signature"
    timestamp_header: Annotated[str, Meta(description="Header with the time of sending, epoch seconds.")] = (
        "webhook-timestamp"
    )
    id_header: Annotated[str, Meta(description="Header with the message's id; empty: the sender has none.")] = (
        "webhook-id"
    )
    tolerance_seconds: Annotated[
        float, Meta(description="How far the sender's clock may be from ours.", gt=0, le=86400)
    ] = 300.0
    replay_entries: Annotated[
        int,
        Meta(
            description="Signatures remembered to refuse replays. When they are too few for the tolerance, older "
            "requests are refused instead of accepted twice.",
            ge=100,
        ),
    ] = 100_000


class ReceiverSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[receivers.NAME]``: one path that takes records."""

    path: Annotated[str, Meta(description="Path to post to. For type `otlp`: the prefix of /v1/traces, /v1/logs.")] = ""
    type: Annotated[
        Literal["json", "otlp"],
        Meta(description="json: one object, an array or JSON lines; otlp: OTLP/HTTP (protobuf or JSON)."),
    ] = "json"
    tenant: Annotated[str, Meta(description="Tenant that the records belong to.")] = "default"
    record_type: Annotated[str, Meta(description="Treat every record as this type; empty: detect it per record.")] = ""
    map: Annotated[
        str, Meta(description="Field map (TOML) for records of no known type; see `aitrail map --help`.")
    ] = ""
    tokens: Annotated[
        tuple[str, ...], Meta(description="References to bearer tokens; several while one is replaced.")
    ] = ()
    token_header: Annotated[
        str, Meta(description="Header with the token; `authorization` expects `Bearer TOKEN`, others the bare token.")
    ] = "authorization"  # noqa: S105  (a header's name)
    hmac: Annotated[HmacSettings | None, Meta(description="Ask for a signature instead of, or besides, a token.")] = (
        None
    )
    open: Annotated[
        bool, Meta(description="Take records from anybody who reaches this path; only on this machine's addresses.")
    ] = False
    max_body_mb: Annotated[int, Meta(description="MiB of one body as sent.", ge=1, le=1024)] = 16
    max_text_mb: Annotated[int, Meta(description="MiB of one body unpacked.", ge=1, le=4096)] = 64
    max_ratio: Annotated[int, Meta(description="Text per packed byte, beyond the first MiB.", ge=2)] = 250
    join_seconds: Annotated[
        float,
        Meta(
            description="otlp: how long an answer may wait for the rest of a call, whose span and texts may come "
            "apart: log records this long for their span, a span without texts a quarter of it. What comes later is "
            "an event of its own. Stay below the exporter's time-out (10 s).",
            ge=0,
            le=60,
        ),
    ] = 8.0


class GatewaySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[respond.gateways.NAME]``: a gateway at which credentials and users can be blocked."""

    url: Annotated[str, Meta(description="Base address of the gateway's management API, https.")]
    key: Annotated[str, Meta(description="Reference to a key that may block, e.g. env:NAME.")]
    type: Annotated[
        Literal["litellm"], Meta(description="litellm: /key/block for a key's hash, /customer/block for an end user.")
    ] = "litellm"
    users: Annotated[
        bool,
        Meta(
            description="Also block end users. LiteLLM heeds that only with its enterprise callback "
            "`blocked_user_check`; without it the call succeeds and stops nobody."
        ),
    ] = False
    tenant: Annotated[str, Meta(description="Only for findings of this tenant; empty: of all.")] = ""
    ca_file: Annotated[str, Meta(description="PEM file of authorities to trust instead of the system's.")] = ""


class RespondSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[respond]``: what `aitrail serve` does when a SIEM asks for it; without tokens the API is not there."""

    tokens: Annotated[
        tuple[str, ...], Meta(description="References to bearer tokens; several while one is replaced.")
    ] = ()
    dry_run: Annotated[
        bool, Meta(description="Say and record what would be blocked, and block nothing; false: block.")
    ] = True
    gateways: Annotated[dict[str, GatewaySettings], Meta(description="Where to block, one table each.")] = {}


class Served(Struct, frozen=True):
    """The checked settings of one server."""

    serve: ServeSettings
    receivers: dict[str, ReceiverSettings]
    respond: RespondSettings = RespondSettings()

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.serve.host)


def served(config: Config, *, host: str | None = None, port: int | None = None) -> Served:
    """Read and check ``[serve]`` and ``[receivers.*]``; ``host`` and ``port`` override.

    Raises:
        ConfigError: names the field and the fix.
    """
    serve = config.section("serve", config.serve, ServeSettings)
    changes: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    serve = msgspec.structs.replace(serve, **changes)
    receivers = {
        name: config.section(f"receivers.{name}", table, ReceiverSettings) for name, table in config.receivers.items()
    }
    respond = config.section("respond", config.respond, RespondSettings)
    found = Served(serve, receivers, respond)
    _check_serve(config, serve, loopback=found.loopback)
    _check_respond(config, respond)
    taken: dict[str, str] = {}
    for name, receiver in receivers.items():
        _check_receiver(config, name, receiver, loopback=found.loopback)
        for path in paths_of(receiver):
            other = taken.setdefault(path, name)
            if other != name or path in RESERVED:
                whose = f"also that of receivers.{other}" if other != name else "the server's own"
                raise ConfigError(f"the path {path} is {whose}", where=config.where(f"receivers.{name}.path"))
    return found


def paths_of(receiver: ReceiverSettings) -> tuple[str, ...]:
    """The paths that a receiver answers."""
    if receiver.type == "json":
        return (receiver.path,)
    prefix = receiver.path.rstrip("/")
    return (f"{prefix}/v1/traces", f"{prefix}/v1/logs")


def is_loopback(host: str) -> bool:
    """Whether ``host`` is an address of this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _check_serve(config: Config, serve: ServeSettings, *, loopback: bool) -> None:
    if bool(serve.tls_certificate) != bool(serve.tls_key):
        missing = "tls_key" if serve.tls_certificate else "tls_certificate"
        raise ConfigError(f"{missing} is missing", where=config.where(f"serve.{missing}"), hint="TLS needs both files")
    if serve.client_ca and not serve.tls_certificate:
        raise ConfigError("client_ca needs TLS", where=config.where("serve.client_ca"), hint="set tls_certificate")
    if not loopback and not serve.tls_certificate and not serve.behind_tls_proxy:
        raise ConfigError(
            f"listening on {serve.host} without TLS would let prompts and tokens be read on the way",
            where=config.where("serve.host"),
            hint="set tls_certificate and tls_key, or behind_tls_proxy = true when a proxy in front does TLS",
        )
    for name in ("tls_certificate", "tls_key", "client_ca"):
        path = getattr(serve, name)
        if path and not config.resolve(path).is_file():
            raise ConfigError(f"no such file: {path}", where=config.where(f"serve.{name}"))
    _check_references(config, "serve.metrics_tokens", serve.metrics_tokens)


def _check_respond(config: Config, respond: RespondSettings) -> None:
    _check_references(config, "respond.tokens", respond.tokens)
    if respond.gateways and not respond.tokens:
        raise ConfigError("nobody may ask", where=config.where("respond.tokens"), hint='tokens = ["env:NAME"]')
    for name, gateway in respond.gateways.items():
        if check_name(name):
            raise ConfigError(f"the name {name!r} is not allowed", where=config.where("respond"), hint=check_name(name))
        _check_references(config, f"respond.gateways.{name}.key", (gateway.key,))
        if gateway.ca_file and not config.resolve(gateway.ca_file).is_file():
            where = config.where(f"respond.gateways.{name}.ca_file")
            raise ConfigError(f"no such file: {gateway.ca_file}", where=where)


def _check_receiver(config: Config, name: str, receiver: ReceiverSettings, *, loopback: bool) -> None:
    def wrong(field: str, message: str, hint: str = "") -> ConfigError:
        return ConfigError(message, where=config.where(f"receivers.{name}.{field}"), hint=hint)

    if receiver.type == "json" and not _PATH.fullmatch(receiver.path):
        raise wrong("path", "a receiver needs a path", f'path = "/ingest/{name}"')
    if receiver.type == "otlp" and receiver.path and not _PATH.fullmatch(receiver.path):
        raise wrong("path", "this is no path", 'path = "/team-a" serves /team-a/v1/traces; leave it out for /v1/traces')
    if check_name(receiver.tenant):
        raise wrong("tenant", f"the name {receiver.tenant!r} is not allowed", check_name(receiver.tenant))
    if receiver.record_type and receiver.record_type not in NORMALIZERS:
        raise wrong("record_type", f"unknown record type {receiver.record_type!r}", f"known: {', '.join(NORMALIZERS)}")
    if receiver.map and receiver.record_type not in ("", "generic_access"):
        raise wrong(
            "map", f"a field map is for generic_access, not for {receiver.record_type}", "leave one of them out"
        )
    if receiver.record_type == "generic_access" and not receiver.map:
        raise wrong("map", "generic_access needs a field map", 'map = "map.toml"; try it with: aitrail map FILE')
    if receiver.type == "otlp" and (receiver.record_type or receiver.map):
        raise wrong("type", "otlp knows its records", 'leave record_type and map out, or use type = "json"')
    if not (receiver.tokens or receiver.hmac or receiver.open):
        raise wrong(
            "tokens", "nobody is asked who they are", 'tokens = ["env:NAME"], a [...hmac] section or open = true'
        )
    if receiver.open and (receiver.tokens or receiver.hmac):
        raise wrong("open", "open, but tokens or hmac are set", "leave one of them out")
    if receiver.open and not loopback:
        raise wrong("open", "an open receiver listens beyond this machine", 'ask for a token: tokens = ["env:NAME"]')
    _check_references(config, f"receivers.{name}.tokens", receiver.tokens)
    headers = [("token_header", receiver.token_header)]
    if receiver.hmac is not None:
        if not receiver.hmac.secrets:
            raise wrong("hmac.secrets", "no secret is named", 'secrets = ["env:NAME"]')
        _check_references(config, f"receivers.{name}.hmac.secrets", receiver.hmac.secrets)
        hmac = receiver.hmac
        headers += [("hmac.signature_header", hmac.signature_header), ("hmac.timestamp_header", hmac.timestamp_header)]
        headers += [("hmac.id_header", hmac.id_header)] if hmac.id_header else []
    for field, header in headers:
        if not _HEADER.fullmatch(header):
            raise wrong(field, "this is no header name")


def _check_references(config: Config, field: str, references: tuple[str, ...]) -> None:
    for reference in references:
        problem = check_reference(reference)
        if problem:
            raise ConfigError(problem, where=config.where(field))
