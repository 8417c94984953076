"""The ``elasticsearch`` client (8 and 9) over aitrail's own HTTP sender.

The client keeps what it does well: authentication headers, media types of its version, the product check, several nodes
in turn. What it cannot promise is done by the sender below it: a hard deadline, a cap on answers, certificates always
verified, no redirect elsewhere, and no body in a debug log. Bodies are packed here with gzip level 1: the client's own
way of packing uses level 9, and its NDJSON writer would add a line break to packed bytes.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import elasticsearch
import msgspec
from elastic_transport import (
    ApiResponseMeta,
    BaseNode,
    ConnectionError,  # noqa: A004 - the client's own, by which it knows to try another node
    HttpHeaders,
    JsonSerializer,
    NodeConfig,
    TransportError,
)
from elastic_transport._node import NodeApiResponse
from isal import igzip

from aitrail.destinations._elastic_codes import Answer
from aitrail.destinations._elastic_settings import ElasticSettings
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.net.http import HttpSender, check_url
from aitrail.ports import SecretResolver

# The client logs bodies at DEBUG and every failed try as a warning; what failed is in our own errors, without content.
logging.getLogger("elastic_transport").setLevel(logging.ERROR)

_PACK_FROM = 1_024
_ANY_STATUS = range(300, 600)


class ElasticClient:
    """Calls Elasticsearch. Thread-safe.

    Args:
        settings: nodes and credentials.
        secrets: resolves the credentials when they are needed, and once more when the server refuses them.
        sender: how requests are sent.
        where: the setting that this comes from, for errors.
    """

    def __init__(self, settings: ElasticSettings, secrets: SecretResolver, sender: HttpSender, where: str) -> None:
        self._settings = settings
        self._secrets = secrets
        self._where = where
        self._lock = threading.Lock()
        self._secret: str | None = None
        self._deadline = threading.local()
        nodes = [_node_config(url, sender, where) for url in settings.urls]
        if not nodes:
            raise ConfigError(
                "an Elastic destination needs urls", where=f"{where}.urls", hint='["https://elastic.example.com:9200"]'
            )
        if bool(settings.api_key) == bool(settings.username):
            raise ConfigError(
                "an Elastic destination needs either api_key, or username and password",
                where=f"{where}.api_key",
                hint="api_key = 'env:ELASTIC_API_KEY'",
            )
        reader = _Reader()
        self._bare = elasticsearch.Elasticsearch(
            nodes,
            node_class=_node_class(sender, self._deadline),
            serializers={
                f"application/{kind}": reader
                for kind in ("json", "x-ndjson", "vnd.elasticsearch+json", "vnd.elasticsearch+x-ndjson")
            },
            max_retries=len(nodes) - 1,
            retry_on_status=(),
            retry_on_timeout=False,
            randomize_nodes_in_pool=False,
        )
        self._client: elasticsearch.Elasticsearch | None = None

    def call(
        self,
        method: str,
        path: str,
        *,
        deadline: float,
        body: bytes | Mapping[str, Any] | None = None,
        lines: bool = False,
    ) -> Answer:
        """Make one call; 401 is tried once more with the secret read anew, when that has changed.

        Args:
            method: HTTP method.
            path: path and query.
            deadline: monotonic seconds.
            body: JSON object, or encoded bytes.
            lines: whether the body is NDJSON.

        Raises:
            ConfigError, TransientError: nothing was answered, or not by Elasticsearch.
            AuthError: 401, also with the secret read anew.
        """
        client, used = self._authorized()
        answer = self._call(client, method, path, deadline, body, lines)
        if answer.status != 401:
            return answer
        client, fresh = self._authorized(instead_of=used)
        if fresh != used:
            answer = self._call(client, method, path, deadline, body, lines)
        if answer.status == 401:
            raise AuthError(
                f"{self._where}: Elasticsearch refuses the credentials (HTTP 401)",
                hint="make a new API key (Kibana > Stack Management > API keys) and put it where api_key points",
            )
        return answer

    def close(self) -> None:
        """Close the client; the sender is its owner's."""
        self._bare.close()

    def _authorized(self, instead_of: str | None = None) -> tuple[elasticsearch.Elasticsearch, str]:
        """The client with credentials; resolved anew when they never were, or when those given were refused."""
        with self._lock:
            if self._client is None or self._secret is None or self._secret == instead_of:
                settings = self._settings
                secret = self._secrets.resolve(settings.api_key or settings.password)
                who: dict[str, Any] = (
                    {"api_key": secret} if settings.api_key else {"basic_auth": (settings.username, secret)}
                )
                self._client = self._bare.options(ignore_status=_ANY_STATUS, **who)
                self._secret = secret
            return self._client, self._secret

    def _call(
        self, client: elasticsearch.Elasticsearch, method: str, path: str, deadline: float, body: Any, lines: bool
    ) -> Answer:
        self._deadline.at = deadline
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/x-ndjson" if lines else "application/json"
        try:
            got = client.perform_request(method, path, headers=headers, body=body)
        except elasticsearch.UnsupportedProductError:
            raise ConfigError(
                "the server is not Elasticsearch: its answer has no X-Elastic-Product header",
                where=f"{self._where}.urls",
                hint="name an Elasticsearch node (8 or newer); a proxy must pass that header on",
            ) from None
        except TransportError as error:
            cause = error.__cause__
            if isinstance(cause, AitrailError):
                raise cause from None
            raise TransientError(f"{self._where}: the Elasticsearch client failed ({type(error).__name__})") from None
        return Answer(got.meta.status, dict(got.meta.headers), got.body if method != "HEAD" else None)


class _Reader(JsonSerializer):
    """Reads answers with a bounded, strict parser; what is no JSON is None, never an error that quotes it."""

    def loads(self, data: bytes) -> Any:
        try:
            return msgspec.json.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def dumps(self, data: Any) -> bytes:
        return data if isinstance(data, bytes) else msgspec.json.encode(data)


def _node_config(url: str, sender: HttpSender, where: str) -> NodeConfig:
    origin = urlsplit(check_url(url, sender.endpoint))
    given = urlsplit(url)
    if given.query or given.fragment:
        raise ConfigError("a node's URL has no query", where=f"{where}.urls", hint="https://host:9200")
    assert origin.hostname is not None
    assert origin.port is not None
    return NodeConfig(origin.scheme, origin.hostname, origin.port, path_prefix=given.path.rstrip("/"))


def _node_class(sender: HttpSender, deadline: threading.local) -> type[BaseNode]:
    """Make the class of nodes that send through ``sender`` until the deadline of the calling thread."""

    class SenderNode(BaseNode):
        """One node; the client makes one of each URL."""

        def perform_request(
            self,
            method: str,
            target: str,
            body: bytes | None = None,
            headers: HttpHeaders | None = None,
            request_timeout: Any = None,
        ) -> NodeApiResponse:
            del request_timeout
            sent = dict(headers or {})
            content = body or b""
            if len(content) >= _PACK_FROM:
                content = igzip.compress(content, 1)
                sent["content-encoding"] = "gzip"
            start = time.monotonic()
            try:
                response = sender.request(
                    method, self.base_url + target, deadline=deadline.at, content=content, headers=sent
                )
            except AitrailError as error:
                # The client tries the next node after this error; the last one is unwrapped again in ``_call``.
                raise ConnectionError(str(error)) from error
            told = HttpHeaders(response.headers)
            told.pop("warning", None)  # deprecations; the client would turn each into a Python warning
            answer = response.body
            if "json" not in (told.get("content-type") or ""):
                told["content-type"], answer = "text/plain", b""
            meta = ApiResponseMeta(
                status=response.status,
                http_version="1.1",
                headers=told,
                duration=time.monotonic() - start,
                node=self.config,
            )
            return NodeApiResponse(meta, answer)

    return SenderNode
