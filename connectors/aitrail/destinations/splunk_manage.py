"""Splunk's management API (splunkd, port 8089), through splunk-sdk: set up what HEC needs, and count what arrived.

Everything is idempotent: what is there and right is left alone. The SDK speaks through aitrail's own sender, so
certificates are verified, the proxy is the configured one, and answers are bounded. A refusal names the capability that
is missing (Splunk, authorize.conf: ``indexes_edit``, ``edit_token_http``, ``schedule_search``, ``search``).
"""

import io
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import msgspec
from splunklib import binding, client, results

from aitrail.clock import Clock, SystemClock
from aitrail.destinations._splunk_settings import SplunkSettings
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.net.http import AnswerTooLong, HttpSender, check_url
from aitrail.ports import SecretResolver

APP = "aitrail"
TOKEN_NAME = "aitrail"  # noqa: S105 - a name, not a token
# A search may take longer than a request that delivers.
_SEARCH_SECONDS = 300.0
_NEEDS = re.compile(r"requires capability:?\s*([a-z_]+)")
_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PLAIN = re.compile(r"[A-Za-z0-9_:.\-]+")
_INPUTS = "data/inputs/http/"
_FAULTS = frozenset({"FATAL", "ERROR"})

_decode = msgspec.json.Decoder().decode


class Step(msgspec.Struct, frozen=True):
    """One thing that ``install`` looks after: what it is, and whether it was ``there``, ``created`` or ``changed``."""

    what: str
    state: str


class SplunkManager:
    """Manages one Splunk Enterprise server, and searches any.

    Args:
        settings: ``management_url`` and ``management_token`` must be set.
        secrets: resolves both tokens.
        name: the destination's name, for errors.
        clock: reads Retry-After dates.
    """

    def __init__(
        self, settings: SplunkSettings, secrets: SecretResolver, name: str, *, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._where = f"destinations.{name}"
        if not settings.management_url or not settings.management_token:
            missing = "management_token" if settings.management_url else "management_url"
            raise ConfigError(
                f"{missing} is missing",
                where=f"{self._where}.{missing}",
                hint='management_url = "https://splunk.example.com:8089", management_token = "env:SPLUNK_TOKEN"',
            )
        endpoint = msgspec.structs.replace(settings.endpoint(self._where), seconds=_SEARCH_SECONDS)
        self._origin = check_url(settings.management_url, endpoint)
        self._sender = HttpSender(endpoint, now=(clock or SystemClock()).now)
        parts = urlsplit(self._origin)
        self._service = client.Service(
            scheme=parts.scheme,
            host=parts.hostname,
            port=parts.port,
            splunkToken=secrets.resolve(settings.management_token),
            handler=self._handle,
            owner="nobody",
            app="search",
        )

    def close(self) -> None:
        """Give back connections."""
        self._sender.close()

    # --- set-up

    def install(self, *, change: bool = True, enable_searches: bool = False) -> list[Step]:
        """Bring index, HTTP Event Collector and token to where the settings expect them.

        Args:
            change: False only says what would be done.
            enable_searches: also enable the scheduled searches of the app ``aitrail``, where it is installed.

        Raises:
            AuthError: a capability is missing; the message names it.
            ConfigError: Splunk Cloud (it has no such API), or something of that name is there and is another thing.
        """
        info = self._try(lambda: self._service.info)
        if str(info.get("instance_type", "")).lower() == "cloud":
            raise ConfigError(
                f"{self._origin} is Splunk Cloud, which lets nobody create indexes and tokens through splunkd",
                where=f"{self._where}.management_url",
                hint="create the index and the HEC token in Splunk Web (Settings) or with the Admin Config Service",
            )
        steps = [self._index(change=change), self._collector(change=change), self._token(change=change)]
        return [*steps, *self._searches(change=change, enable=enable_searches)]

    def _index(self, *, change: bool) -> Step:
        name = self._plain(self._settings.index, "index")
        found = self._entity(self._service.indexes, name)
        what = f"index {name}"
        if found is None:
            if change:
                self._try(lambda: self._service.indexes.create(name, datatype="event"))
            return _step(what, "created", change)
        if found.content.get("datatype", "event") != "event":
            raise ConfigError(
                f"the index {name} is for metrics", where=f"{self._where}.index", hint="name an index for events"
            )
        return self._differing(found, what, {"disabled": "0"}, change=change)

    def _collector(self, *, change: bool) -> Step:
        """The switch of the HTTP Event Collector as a whole."""
        switch = self._try(lambda: client.Entity(self._service, f"{_INPUTS}http"))
        return self._differing(switch, "HTTP Event Collector enabled", {"disabled": "0"}, change=change)

    def _token(self, *, change: bool) -> Step:
        """The token that ``token`` refers to: its value is registered, so that no secret has to be carried back."""
        value = self._secrets.resolve(self._settings.token)
        if not _GUID.fullmatch(value):
            raise ConfigError(
                "the HEC token is no GUID, and Splunk takes no other",
                where=f"{self._where}.token",
                hint="make one, e.g. with uuidgen, and put it where token points",
            )
        index = self._settings.index
        wanted = {
            "index": index,
            "indexes": index,
            "sourcetype": self._settings.sourcetype,
            "useACK": "1" if self._settings.ack else "0",
            "disabled": "0",
        }
        inputs = client.Collection(self._service, _INPUTS, item=client.Entity)
        known = self._try(lambda: inputs.list(count=-1))
        mine = next((one for one in known if str(one.content.get("token", "")).lower() == value.lower()), None)
        if mine is not None:
            return self._differing(mine, f"HEC token {_short(mine.name)}", wanted, change=change)
        if any(_short(one.name) == TOKEN_NAME for one in known):
            raise ConfigError(
                f"Splunk has a HEC token named {TOKEN_NAME!r} with another value",
                where=f"{self._where}.token",
                hint="put that value where token points (Settings > Data inputs > HTTP Event Collector), or delete it",
            )
        if change:
            self._try(lambda: inputs.create(TOKEN_NAME, token=value, **wanted))
        return _step(f"HEC token {TOKEN_NAME}", "created", change)

    def _searches(self, *, change: bool, enable: bool) -> list[Step]:
        if self._entity(self._service.apps, APP) is None:
            return [Step(f"app {APP}", "not installed; its searches and dashboards come with it")]
        searches = self._try(lambda: self._service.saved_searches.list(count=-1, app=APP, owner="nobody"))
        scheduled = [one for one in searches if one.access.get("app") == APP and _is(one.content.get("is_scheduled"))]
        off = [one for one in scheduled if _is(one.content.get("disabled"))]
        what = f"{len(scheduled)} scheduled searches of the app {APP}"
        if not off:
            return [Step(what, "there")]
        if not enable:
            return [Step(what, f"there, {len(off)} of them disabled; --enable-searches enables them")]
        for one in off if change else ():
            self._try(one.enable)
        return [_step(what, f"changed: {len(off)} enabled", change)]

    def _differing(self, entity: Any, what: str, wanted: Mapping[str, str], *, change: bool) -> Step:
        different = {name: value for name, value in wanted.items() if not _same(entity.content.get(name), value)}
        if not different:
            return Step(what, "there")
        if change:
            self._try(lambda: entity.post(**different))
        return _step(what, f"changed: {', '.join(different)}", change)

    # --- counting

    def counts(self, start: int, end: int) -> dict[str, int] | None:
        """Count the events of the index by event id, for times in [start, end) (epoch milliseconds).

        Returns:
            How often each id is there; None when there are too many for one answer.

        Raises:
            AuthError: the role may not search, or not this index.
        """
        index, sourcetype = self._plain(self._settings.index, "index"), self._settings.sent_as
        query = f'| tstats count where index="{index}" sourcetype="{self._plain(sourcetype, "sourcetype")}" by event_id'
        try:
            stream = self._try(
                lambda: self._service.jobs.export(
                    query,
                    earliest_time=f"{start / 1000:.3f}",
                    latest_time=f"{end / 1000:.3f}",
                    output_mode="json",
                    preview="false",
                )
            )
        except AnswerTooLong:
            return None
        counted: dict[str, int] = {}
        for row in results.JSONResultsReader(stream):
            if isinstance(row, results.Message):
                if row.type in _FAULTS:
                    raise TransientError(f"{self._origin}: the search failed", hint="look at the job in Splunk Web")
                continue
            counted[str(row["event_id"])] = int(row["count"])
        return counted

    def check_search(self) -> None:
        """Make sure that counting can work: an index that the role may not see looks just like an empty one.

        Raises:
            AuthError: names the capability or the role's setting that is missing.
        """
        context = self._try(lambda: self._service.get("authentication/current-context", output_mode="json"))
        entries = _decode(context.body.read()).get("entry", [])
        capabilities = entries[0].get("content", {}).get("capabilities", []) if entries else []
        if "search" not in capabilities:
            raise self._lacking("search")
        index = self._plain(self._settings.index, "index")
        if self._entity(self._service.indexes, index) is None:
            raise AuthError(
                f"{self._origin}: there is no index {index}, or the role of management_token may not see it",
                hint=f"add {index} to the role's searched indexes (srchIndexesAllowed), or: aitrail splunk install",
            )

    # --- talking

    def _plain(self, text: str, setting: str) -> str:
        """A name that needs no quoting in a search or a path."""
        if not _PLAIN.fullmatch(text):
            raise ConfigError(
                "letters, digits, '_', ':', '.' and '-' only", where=f"{self._where}.{setting}", hint="e.g. ai_audit"
            )
        return text

    def _entity(self, collection: Any, name: str) -> Any:
        """The entity, or None."""
        try:
            return self._try(lambda: collection[name])
        except KeyError:
            return None

    def _try(self, call: Any) -> Any:
        """Make a call of the SDK; its errors become ours, without what they quote."""
        try:
            return call()
        except binding.HTTPError as error:
            raise self._explained(error) from None
        except binding.AuthenticationError:
            raise self._refused() from None
        except (ParseError, ValueError, AttributeError, TypeError) as error:
            raise TransientError(
                f"{self._origin}: the answer cannot be read ({type(error).__name__})",
                hint="management_url has to be splunkd itself (port 8089), not Splunk Web or a proxy",
            ) from None

    def _explained(self, error: Any) -> AitrailError:
        status = int(error.status)
        found = _NEEDS.search(str(error))
        if status == 401:
            return self._refused()
        if status == 403:
            return self._lacking(found[1] if found else "")
        if status in (408, 429) or status >= 500:
            return TransientError(f"{self._origin}: splunkd answers HTTP {status}", hint="try again later")
        return ConfigError(
            f"splunkd at {self._origin} answers HTTP {status}",
            where=f"{self._where}.management_url",
            hint="name splunkd of a search head (port 8089); on a search head cluster create indexes on the indexers",
        )

    def _refused(self) -> AuthError:
        return AuthError(
            f"{self._origin}: management_token is refused",
            hint="make a new one in Splunk Web (Settings > Tokens) and put it where management_token points",
        )

    def _lacking(self, capability: str) -> AuthError:
        what = f"the capability {capability}" if capability else "a capability"
        return AuthError(
            f"{self._origin}: the role of management_token lacks {what}",
            hint="grant it in Settings > Roles; install needs indexes_edit, edit_token_http and schedule_search, "
            "verify needs search",
        )

    def _handle(self, url: str, message: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        """What splunklib calls for every request (``binding.HttpLib``, handler)."""
        body = message.get("body", "")
        response = self._sender.request(
            message.get("method", "GET"),
            url,
            deadline=time.monotonic() + _SEARCH_SECONDS,
            content=body.encode() if isinstance(body, str) else body,
            headers={name: str(value) for name, value in message["headers"]},
        )
        return {
            "status": response.status,
            "reason": "",
            "headers": list(response.headers.items()),
            "body": binding.ResponseReader(io.BytesIO(response.body)),
        }


def _step(what: str, state: str, change: bool) -> Step:
    return Step(what, state if change else f"would be {state}")


def _short(name: str) -> str:
    """The name of a token without the scheme that Splunk puts in front of it."""
    return name.removeprefix("http://")


def _is(value: Any) -> bool:
    return str(value).lower() in ("1", "true")


def _same(found: Any, wanted: str) -> bool:
    if wanted in ("0", "1"):
        return _is(found) == (wanted == "1")
    return (",".join(map(str, found)) if isinstance(found, list) else str(found)) == wanted
