"""Elasticsearch as a destination: every event is one document of a data stream, under its own id.

Bulk requests of ``create`` with ``_id`` = event_id: what is already in the current backing index is answered 409 and
counts as ``duplicate``, so a resend stores nothing twice there. After a rollover the same id would be taken again, so
rules and dashboards count distinct ``event.id``. Every item of an answer is judged for itself; an answer whose items do
not match the request judges nothing.
"""

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from aitrail.clock import Clock, SystemClock, iso_ms
from aitrail.destinations import _work
from aitrail.destinations._batching import pack
from aitrail.destinations._elastic_codes import PRIVILEGES, Answer, Item, Rule, judge_call, judge_item
from aitrail.destinations._elastic_settings import ElasticSettings
from aitrail.destinations._work import Run, Work
from aitrail.destinations.elastic_documents import Documents
from aitrail.destinations.elastic_install import TEMPLATE_VERSION, install
from aitrail.destinations.elastic_records import RecordDocuments
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.net.http import HttpSender, clock_trouble, parse_retry_after
from aitrail.ports import DELIVERED, DUPLICATE, Ack, EncodedEvent, Limits, SecretResolver, Verdict

if TYPE_CHECKING:
    from aitrail.destinations.elastic_client import ElasticClient

# Only what the verdicts need: answers stay small, and no value of a refused field comes back.
_FILTER = "errors,items.*.status,items.*.error.type,items.*.failure_store"
_CHECK_SECONDS = 10.0
# Below search.max_buckets (65,536), and an answer of this many is about a megabyte.
_COUNTED_IDS = 10_000
_OLDEST_SERVER = 8
# An ECS document with its action line is longer than the canonical bytes by about this factor.
_GROWTH = 1.8

_json = msgspec.json.Encoder().encode


class ElasticDestination:
    """Sends events to one data stream. Thread-safe.

    Args:
        settings: where and how.
        secrets: resolves the credentials.
        name: the destination's name in the outbox.
        clock: reads Retry-After dates.
        sender: how requests are sent; made from the settings unless given.
    """

    dedupe: Literal["by_id", "none"] = "by_id"

    def __init__(
        self,
        settings: ElasticSettings,
        secrets: SecretResolver,
        *,
        name: str = "elastic",
        clock: Clock | None = None,
        sender: HttpSender | None = None,
    ) -> None:
        self.name = name
        self._where = f"destinations.{name}"
        self._settings = settings
        self._clock = clock or SystemClock()
        self._sender = sender or HttpSender(settings.endpoint(self._where), now=self._clock.now)
        self._client = _client(settings, secrets, self._sender, self._where)
        self.stream = settings.data_stream(self._where)
        self._documents: Documents | RecordDocuments = (
            Documents(self.stream) if settings.stream == "access" else RecordDocuments(self.stream, settings.stream)
        )
        self._bulk = f"/{self.stream.name}/_bulk?filter_path={_FILTER}"
        self._proven = threading.Event()
        self.limits = Limits(
            max_events=settings.batch_events,
            max_batch_bytes=max(int(settings.batch_bytes / _GROWTH), settings.event_bytes),
            max_event_bytes=settings.event_bytes,
        )

    # --- sending

    def send(self, batch: Sequence[EncodedEvent], deadline: float) -> Ack:
        """Send ``batch`` in as few requests as the limits allow.

        Raises:
            ConfigError: not Elasticsearch, wrong version, data stream cannot be made, or every event is refused.
            AuthError: credentials are refused, or a privilege is missing; the message names it.
            TransientError: no node takes anything now; nothing was judged.
        """
        settings = self._settings
        work = Work.of(batch, deadline)
        _work.encode_all(work, self._lines, settings.event_bytes, settings.batch_bytes, settings.oversize)
        sizes = [len(line) for line in work.lines]
        troubles: list[Item] = []

        def step(first: int, behind: int) -> list[Run]:
            return self._step(work, first, behind, troubles)

        ack = _work.deliver(work, pack(sizes, settings.batch_events, settings.batch_bytes), step)
        if work.accepted:
            self._proven.set()
        elif troubles and work.refused == 0 and len(troubles) == len(work.lines) == len(batch):
            raise self._trouble(troubles[0])
        elif _work.all_refused(work) and not self._proven.is_set():
            code = next(verdict.code for verdict in ack.verdicts if verdict.status == "rejected")
            raise ConfigError(
                f"Elasticsearch refuses every event ({code}): the data stream is not set up for them",
                where=self._where,
                hint="run: aitrail elastic install; look for an ingest pipeline or template of your own on the stream",
            )
        return ack

    def confirm(self, token: str) -> Verdict:
        """Nothing is ever pending here: an item's 201 is final."""
        del token
        return Verdict("retry", code="unknown_token")

    def close(self) -> None:
        """Give back connections."""
        self._client.close()
        self._sender.close()

    def _lines(self, event: EncodedEvent) -> bytes:
        one = event.event_id
        # Ids are hexadecimal; anything else is quoted as JSON does it.
        quoted = b'"' + one.encode() + b'"' if one.isascii() and one.isalnum() else _json(one)
        return b"".join((b'{"create":{"_id":', quoted, b"}}\n", self._documents.document(event), b"\n"))

    def _step(self, work: Work, first: int, behind: int, troubles: list[Item]) -> list[Run]:
        """Send lines [first, behind), judge what the answer says; gives the runs to send instead."""
        body = b"".join(work.lines[first:behind])
        answer = self._client.call("POST", self._bulk, deadline=work.deadline, body=body, lines=True)
        rule = judge_call(answer.status, answer.body)
        if rule.action == "taken":
            self._judge_items(work, first, behind, answer, troubles)
            return []
        if rule.action == "too_large":
            return _work.smaller(work, first, behind, self._lines, self._settings.oversize)
        if rule.action == "data":
            return _work.isolate(work, first, behind, "es_bad_request")
        raise self._failure(answer, rule)

    def _judge_items(self, work: Work, first: int, behind: int, answer: Answer, troubles: list[Item]) -> None:
        if _all_created(answer.body, behind - first):
            work.judge_all(first, behind, DELIVERED)
            return
        items = read_items(answer.body, behind - first)
        if items is None:
            raise TransientError(
                f"{self._where}: the answer does not say of each event what became of it; nothing is judged by it",
                hint="look for a proxy, or a server that only resembles Elasticsearch",
            )
        for place, item in enumerate(items, first):
            if item.action in ("auth", "config"):
                troubles.append(item)
            work.judge(place, _VERDICTS.get(item.action) or _verdict(item))

    def _failure(self, answer: Answer, rule: Rule) -> AitrailError:
        message = f"{self._where}: Elasticsearch: {rule.meaning} (HTTP {answer.status})"
        if rule.action == "auth":
            return AuthError(message, hint=rule.hint)
        if rule.action == "config":
            return ConfigError(message, hint=rule.hint)
        asked = parse_retry_after(answer.headers.get("retry-after", ""), self._clock.now())
        return TransientError(message, retry_after=asked, hint="nothing is lost; events wait in the outbox")

    def _trouble(self, item: Item) -> AitrailError:
        """The error for a batch of which every item says that a privilege is missing, or the data stream is wrong."""
        if item.action == "auth":
            return AuthError(
                f"{self._where}: Elasticsearch takes no event into {self.stream.name}: the privilege create_doc (or "
                f"auto_configure, for the first event) is missing ({item.code})",
                hint=f"give the API key the index privileges {' and '.join(PRIVILEGES)} on {self.stream.name}",
            )
        return ConfigError(
            f"the data stream {self.stream.name} cannot be written to ({item.code})",
            where=self._where,
            hint="run: aitrail elastic install; action.auto_create_index must allow the name",
        )

    # --- checking

    def check(self) -> list[str]:
        """Ask for version, privileges and templates; sends no event."""
        try:
            return [f"{self.name}: {sentence}" for sentence in self._check()]
        except AitrailError as error:
            return [f"{self.name}: {error}{'; ' + error.hint if error.hint else ''}."]

    def _check(self) -> list[str]:
        about = self._ask("GET", "/")
        if about.status not in (200, 403):
            raise self._failure(about, judge_call(about.status, about.body))
        number = str(_inner(about.body, "version", "number") or "")
        if number.partition(".")[0].isdecimal() and int(number.partition(".")[0]) < _OLDEST_SERVER:
            return [f"the server is Elasticsearch {number}; data streams as aitrail uses them need 8.11 or newer."]
        wanted = {"index": [{"names": [self.stream.name], "privileges": list(PRIVILEGES)}]}
        rights = self._ask("POST", "/_security/user/_has_privileges", wanted)
        granted = _inner(rights.body, "index", self.stream.name) if rights.status == 200 else None
        wrong = clock_trouble(about.headers, self._clock.now(), "Elasticsearch")
        if isinstance(granted, dict):
            missing = [one for one in PRIVILEGES if granted.get(one) is False]
            if missing:
                wrong.append(
                    f"the index privileges {' and '.join(missing)} are missing on {self.stream.name}; grant them to "
                    "the API key or role in Kibana > Stack Management."
                )
        name = self.stream.template
        template = self._ask("GET", f"/_index_template/{name}")
        if template.status == 404:
            wrong.append(f"the index template {name} is not there; run: aitrail elastic install.")
        elif template.status == 200 and _version(template.body) < TEMPLATE_VERSION:
            wrong.append(f"the index template {name} is of an older aitrail; run: aitrail elastic install.")
        return wrong

    def install(self) -> list[str]:
        """Put the component and index templates of all streams; gives what was put. Raises as ``send`` does."""
        return install(self._manage, self._settings)

    def refresh(self) -> None:
        """Make the last second searchable; without the privilege for it, it is so a moment later."""
        self._ask("POST", f"/{self.stream.name}/_refresh")

    def counts(self, start: int, end: int) -> dict[str, int] | None:
        """Count in the data stream, over all its backing indices, by event id, for times in [start, end).

        Args:
            start: epoch milliseconds.
            end: the same.

        Returns:
            How often each id is there; None when there are too many for one answer.

        Raises:
            AuthError: the privilege ``read`` is missing.
            ConfigError, TransientError: the search is not possible, or not now.
        """
        times = {"gte": iso_ms(start / 1000), "lt": iso_ms(end / 1000)}
        query = {
            "size": 0,
            "query": {"range": {"@timestamp": times}},
            "aggs": {"ids": {"terms": {"field": "event.id", "size": _COUNTED_IDS}}},
        }
        found = self._manage("POST", f"/{self.stream.name}/_search?filter_path=aggregations,timed_out,_shards", query)
        buckets = _inner(found.body, "aggregations", "ids", "buckets")
        if not isinstance(buckets, list) or found.body.get("timed_out") or _inner(found.body, "_shards", "failed"):
            raise TransientError(f"{self._where}: the search was answered in part only", hint="try again later")
        if _inner(found.body, "aggregations", "ids", "sum_other_doc_count") or len(buckets) >= _COUNTED_IDS:
            return None
        return {one["key"]: one["doc_count"] for one in buckets}

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        deadline = time.monotonic() + min(_CHECK_SECONDS, self._settings.request_seconds)
        return self._client.call(method, path, deadline=deadline, body=body)

    def _manage(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """Make a call that has to succeed."""
        answer = self._ask(method, path, body)
        if answer.status == 403:
            needed = "read" if "_search" in path else "manage_index_templates (cluster)"
            raise AuthError(f"{self._where}: the privilege {needed} is missing", hint="grant it to the API key or role")
        if not 200 <= answer.status < 300:
            rule = judge_call(answer.status, answer.body)
            if rule.action in ("data", "too_large"):
                rule = Rule(rule.meaning, "config", f"the server refuses {method} {path.partition('?')[0]}")
            raise self._failure(answer, rule)
        return answer


def _client(settings: ElasticSettings, secrets: SecretResolver, sender: HttpSender, where: str) -> "ElasticClient":
    try:
        from aitrail.destinations.elastic_client import ElasticClient  # noqa: PLC0415 - needs an extra
    except ImportError:
        raise ConfigError(
            "Elasticsearch needs its client", where=where, hint="pip install 'aitrail[elastic]'"
        ) from None
    return ElasticClient(settings, secrets, sender, where)


_CREATED = {"create": {"status": 201}}
_VERDICTS = {"delivered": DELIVERED, "duplicate": DUPLICATE}


def _verdict(item: Item) -> Verdict:
    return Verdict("rejected" if item.action == "rejected" else "retry", code=item.code)


def _all_created(body: Any, count: int) -> bool:
    """Whether the answer says 201 of every action, and nothing else: by far the usual one, and quick to see."""
    items = body.get("items") if isinstance(body, dict) else None
    return isinstance(items, list) and len(items) == count == items.count(_CREATED)


def read_items(body: Any, count: int) -> list[Item] | None:
    """Judge the items of a bulk answer; None unless there is exactly one ``create`` item for each action."""
    items = body.get("items") if isinstance(body, dict) else None
    if not isinstance(items, list) or len(items) != count:
        return None
    judged: list[Item] = []
    for item in items:
        outcome = judge_item(item.get("create")) if isinstance(item, dict) and len(item) == 1 else None
        if outcome is None:
            return None
        judged.append(outcome)
    return judged


def _inner(body: Any, *path: str) -> Any:
    for key in path:
        body = body.get(key) if isinstance(body, dict) else None
    return body


def _version(body: Any) -> int:
    templates = _inner(body, "index_templates")
    first = templates[0] if isinstance(templates, list) and templates else None
    version = _inner(first, "index_template", "version")
    return version if isinstance(version, int) else 0
