"""A receiver of each kind, and the section of a configuration that reaches it."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aitrail.testing.dce_peer import dce_peer
from aitrail.testing.elastic_peer import elastic_peer
from aitrail.testing.forward_peer import ForwardPeer
from aitrail.testing.hec_peer import HecPeer
from aitrail.testing.kafka_peer import KafkaPeer
from aitrail.testing.syslog_peer import SyslogPeer

Settings = dict[str, Any]


def _splunk(at: Mapping[str, str]) -> Settings:
    return {
        "urls": [at["url"]],
        "token": f"file:{at['token_file']}",
        "index": at["index"],
        "ca_file": at["ca_file"],
        "request_seconds": 5.0,
    }


def _elastic(at: Mapping[str, str]) -> Settings:
    return {
        "urls": [at["url"]],
        "api_key": f"file:{at['token_file']}",
        "namespace": at["namespace"],
        "ca_file": at["ca_file"],
        "request_seconds": 5.0,
        "streams": ["access"],
    }


def _sentinel(at: Mapping[str, str]) -> Settings:
    return {
        "url": at["url"],
        "dcr": at["dcr"],
        "ca_file": at["ca_file"],
        "request_seconds": 5.0,
        "streams": ["access", "health"],
    }


def _dce() -> Any:
    peer = dce_peer(tls=True)
    peer.dialect.streams |= {"Custom-AIAuditHealth_CL"}
    return peer


def _kafka(at: Mapping[str, str]) -> Settings:
    return {
        "brokers": [at["brokers"]],
        "topic": at["topic"],
        "security": at["security"],
        "mechanism": "PLAIN",
        "username": at["username"],
        "password": f"file:{at['token_file']}",
        "ca_file": at["ca_file"],
        "extra": {"broker.address.family": "v4", "topic.metadata.propagation.max.ms": "500"},
        "down_seconds": 1.0,
    }


def _fluentd(at: Mapping[str, str]) -> Settings:
    return {
        "host": at["host"],
        "port": int(at["port"]),
        "ca_file": at["ca_file"],
        "shared_key": f"file:{at['token_file']}",
        "username": at["username"],
        "password": f"file:{at['password_file']}",
        "send_seconds": 5.0,
    }


def _syslog(at: Mapping[str, str]) -> Settings:
    return {
        "host": at["host"],
        "port": int(at["port"]),
        "transport": at["transport"],
        "ca_file": at["ca_file"],
        "send_seconds": 5.0,
    }


MAKE: Mapping[str, tuple[Callable[[], Any], Callable[[Mapping[str, str]], Settings]]] = {
    "splunk": (lambda: HecPeer(tls=True), _splunk),
    "elastic": (lambda: elastic_peer(tls=True), _elastic),
    "sentinel": (_dce, _sentinel),
    "kafka": (lambda: KafkaPeer(tls=True, sasl=True), _kafka),
    "fluentd": (lambda: ForwardPeer(tls=True, auth=True), _fluentd),
    "syslog": (lambda: SyslogPeer(tls=True), _syslog),
}


class Given:
    def __init__(self, token: str) -> None:
        self.token = token
        self.expires_on = int(time.time()) + 3600


class FileCredential:
    """Gives the token that is in the receiver's file, as azure-identity would."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def get_token(self, *scopes: str) -> Given:
        del scopes
        return Given(self._path.read_text())


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {toml(one)}' for key, one in value.items()) + " }"
    return json.dumps(value)


def write(path: Path, kind: str, settings: Settings) -> Path:
    lines = [f"{name} = {toml(value)}" for name, value in settings.items()]
    (path.parent / "in").mkdir(exist_ok=True)
    head = f'[sources.files]\npaths = ["in"]\n[destinations.out]\ntype = "{kind}"\n'
    path.write_text(head + "\n".join(lines) + "\n")
    return path
