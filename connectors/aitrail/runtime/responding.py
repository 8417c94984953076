"""What the response API does: a case is a record, a block is asked of the configured gateways, each once.

Order: what was done before is looked up; a gateway is asked; then the answer (for the next time) and an audit event
(source ``aitrail``, for the store and every destination) become durable. A crash in between makes the gateway be asked
again, which blocks what is blocked already, and the event has the same identity. A trial (``dry_run``) is remembered as
one: once blocking is allowed, the same request blocks.

Facts (LiteLLM proxy, "Key Management" and "Customers"): ``POST /key/block {"key": ...}`` takes a key's hash, which is
what its logs and our ``credential_id`` carry; ``POST /customer/block {"user_ids": [...]}`` marks an end user, which the
proxy heeds only with its enterprise callback, so that is not done unless the settings say it is there. Cloud access
keys and the gateway's own users cannot be blocked there, and are not.
"""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from aitrail.clock import Clock, iso_ms
from aitrail.config import Config, check_name
from aitrail.errors import AitrailError, ConfigError
from aitrail.event import AccessEvent, encode, make_event_id
from aitrail.net.http import Endpoint, HttpSender, check_url
from aitrail.ports import EncodedEvent, SecretResolver
from aitrail.safetext import clean
from aitrail.spool import Intake, Spool, responses
from aitrail.web.auth import Refusal
from aitrail.web.respond import BlockRequest, CaseRequest, Done
from aitrail.web.settings import GatewaySettings, RespondSettings

SOURCE = "aitrail"
# Both gateways' calls are small; Splunk waits 15 s for all of it unless told otherwise.
_CALL_SECONDS = 8.0
_ANSWER_BYTES = 1 << 20
_HASH = re.compile(r"[0-9a-f]{64}")
_LONGEST_SAID = 200

Request = tuple[str, Mapping[str, Any]]


def _litellm(asked: BlockRequest) -> Request | None:
    """Path and body that block it; None when LiteLLM cannot."""
    if asked.kind == "user":
        return "/customer/block", {"user_ids": [asked.value]}
    return ("/key/block", {"key": asked.value}) if _HASH.fullmatch(asked.value) else None


_CALLS: Mapping[str, Callable[[BlockRequest], Request | None]] = {"litellm": _litellm}


class Gateway:
    """One configured gateway.

    Raises:
        ConfigError: its address or the reference to its key will not do.
    """

    def __init__(
        self, name: str, settings: GatewaySettings, config: Config, secrets: SecretResolver, clock: Clock
    ) -> None:
        where = f"respond.gateways.{name}"
        ca_file = str(config.resolve(settings.ca_file)) if settings.ca_file else ""
        endpoint = Endpoint(where=config.where(where), ca_file=ca_file, seconds=_CALL_SECONDS)
        check_url(settings.url, endpoint)
        self.name = name
        self.tenant = settings.tenant
        self.users = settings.users
        self._url = settings.url.rstrip("/")
        self._call = _CALLS[settings.type]
        self._key = settings.key
        self._secrets = secrets
        secrets.resolve(self._key)
        self._sender = HttpSender(endpoint, now=clock.now, cap=_ANSWER_BYTES)

    def can(self, asked: BlockRequest) -> bool:
        """Whether this gateway can block it."""
        known = asked.kind != "user" or self.users
        return known and self._call(asked) is not None and self.tenant in ("", asked.evidence.tenant_id)

    def block(self, asked: BlockRequest) -> str:
        """Block it; gives why it could not be, as a code, or nothing."""
        request = self._call(asked)
        if request is None:
            return "not_blockable"
        path, body = request
        try:
            headers = {
                "Authorization": f"Bearer {self._secrets.resolve(self._key)}",
                "Content-Type": "application/json",
            }
            answer = self._sender.request(
                "POST",
                self._url + path,
                deadline=time.monotonic() + _CALL_SECONDS,
                content=msgspec.json.encode(body),
                headers=headers,
            )
        except AitrailError:
            return "unreachable"
        return "" if 200 <= answer.status < 300 else f"http_{answer.status}"

    def close(self) -> None:
        """Close its connections."""
        self._sender.close()


class _Record(Struct, frozen=True):
    """What the audit event says."""

    key: str
    action: str
    tenant: str
    resource_type: str
    resource_id: str
    purpose: str
    finding: str
    outcome: str = "success"
    error: str = ""
    flags: tuple[str, ...] = ()


class Responder:
    """Does what the response API is asked for, one request at a time."""

    def __init__(
        self,
        spool: Spool,
        destinations: Sequence[str],
        settings: RespondSettings,
        gateways: Sequence[Gateway],
        clock: Clock,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._spool = spool
        self._destinations = tuple(destinations)
        self._dry_run = settings.dry_run
        self._gateways = tuple(gateways)
        self._clock = clock
        self._wake = wake
        self._lock = threading.Lock()
        self._log = structlog.get_logger("aitrail.respond")

    def case(self, asked: CaseRequest, key: str) -> Done | Refusal:
        """Open a case: a number, and an event that says so."""
        once = _once("case", asked.finding, key, "")
        if isinstance(once, Refusal):
            return once
        with self._lock:
            before = self._before(once)
            if before is not None:
                return before
            done = Done(
                id=f"case-{once[:12]}",
                action="case",
                state="opened",
                message=f"Recorded in the collector's store and shipped as an event ({asked.severity}); "
                "no ticket system was asked.",
                finding=asked.finding,
            )
            tenant = _tenant(asked.evidence.tenant_id)
            about = ("finding", asked.finding or asked.evidence.event_id)
            return self._keep(once, done, _Record(once, "response.case", tenant, *about, asked.title, asked.finding))

    def block(self, asked: BlockRequest, key: str) -> Done | Refusal:
        """Block a credential or user at every gateway that can."""
        once = _once("block", asked.finding, key, f"{asked.kind}:{asked.value}")
        if isinstance(once, Refusal):
            return once
        with self._lock:
            before = self._before(once)
            if before is not None and (before.state == "blocked" or self._dry_run):
                return before
            able = [gateway for gateway in self._gateways if gateway.can(asked)]
            names = tuple(gateway.name for gateway in able)
            if not able:
                return Refusal(
                    422,
                    "not_blockable",
                    "no configured gateway can block this; nothing was done. LiteLLM blocks the hash of a key, and end "
                    "users where [respond.gateways.NAME] has users = true",
                )
            about = (_tenant(asked.evidence.tenant_id), asked.kind, asked.value, asked.reason, asked.finding)
            if self._dry_run:
                record = _Record(f"{once}:dry_run", "response.block", *about, flags=("dry_run",))
                message = "Nothing was blocked: dry_run is on in [respond]. These gateways would be asked."
                return self._keep(once, Done(once[:16], "block", "dry_run", message, asked.finding, names), record)
            failed = {gateway.name: why for gateway in able if (why := gateway.block(asked))}
            if failed:
                return self._failed(once, about, failed)
            message = "These gateways have blocked it."
            done = Done(once[:16], "block", "blocked", message, asked.finding, names)
            return self._keep(once, done, _Record(once, "response.block", *about))

    def close(self) -> None:
        """Close the connections to the gateways."""
        for gateway in self._gateways:
            gateway.close()

    def _before(self, once: str) -> Done | None:
        held = responses.find(self._spool.database, once)
        return msgspec.structs.replace(msgspec.json.decode(held, type=Done), repeated=True) if held else None

    def _keep(self, once: str, done: Done, record: _Record) -> Done:
        # The event first: without it nothing is remembered, so that the next request makes up for a crash.
        self._ship(record)
        responses.keep(self._spool.database, once, msgspec.json.encode(done))
        self._log.info("a response was given", action=done.action, state=done.state, id=done.id)
        return done

    def _failed(self, once: str, about: tuple[str, str, str, str, str], failed: Mapping[str, str]) -> Refusal:
        told = ", ".join(f"{name}: {why}" for name, why in failed.items())
        now = f"{once}:{self._clock.now()}"
        self._ship(_Record(now, "response.block", *about, outcome="error", error=next(iter(failed.values()))))
        self._log.warning("a gateway did not block", gateways=told)
        return Refusal(502, "gateway_failed", f"not blocked everywhere ({told}); ask again", retry_after=30.0)

    def _ship(self, record: _Record) -> None:
        now = iso_ms(self._clock.now())
        event = AccessEvent(
            event_id=make_event_id(record.tenant, SOURCE, f"response:{record.key}"),
            timestamp=now,
            tenant_id=record.tenant,
            source=SOURCE,
            source_event_id=record.key,
            ingested_at=now,
            related_ids=(record.finding,) if record.finding else (),
            flags=record.flags,
            principal_type="service",
            user_id="aitrail-response",
            purpose=clean(record.purpose)[:_LONGEST_SAID].lower(),
            app="aitrail",
            action=record.action,
            action_kind="admin",
            read_only=False,
            resource_type=record.resource_type,
            resource_id=record.resource_id,
            outcome_status="error" if record.outcome == "error" else "success",
            error_code=record.error,
        )
        encoded = EncodedEvent(event.event_id, event.timestamp, encode(event))
        self._spool.commit(Intake(SOURCE, self._destinations, [encoded], {}))
        self._wake()


def _once(action: str, finding: str, key: str, target: str) -> str | Refusal:
    """What makes a request the same as an earlier one: its finding, else its own key."""
    if not finding and not key:
        return Refusal(400, "key_missing", "name the finding, or send an Idempotency-Key")
    parts = (action, "finding" if finding else "key", finding or key, target)
    return hashlib.sha256("\x00".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def _tenant(name: str) -> str:
    """The tenant of the evidence where it may be one, else the default."""
    return "default" if check_name(name) else name


def make_responder(
    config: Config,
    settings: RespondSettings,
    spool: Spool,
    destinations: Sequence[str],
    secrets: SecretResolver,
    clock: Clock,
    wake: Callable[[], None] = lambda: None,
) -> Responder:
    """Put it together.

    Raises:
        ConfigError: a gateway's settings will not do.
    """
    gateways = [Gateway(name, one, config, secrets, clock) for name, one in settings.gateways.items()]
    if not settings.dry_run and not gateways:
        raise ConfigError(
            "dry_run is off, and there is no gateway to block at",
            where=config.where("respond.dry_run"),
            hint="add [respond.gateways.NAME] with url and key",
        )
    return Responder(spool, destinations, settings, gateways, clock, wake)
