"""The identity of a function app, secrets of Key Vault, and what the host tells, each with its bad input."""

import http.server
import json
import socket
import threading
import time
import typing

import pytest

pytest.importorskip("azure.functions", reason="needs the dev extra")
from aitrail.destinations._azure_token import Tokens, default_credential
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.managed_identity import CredentialUnavailableError, ManagedIdentity, in_function_app
from aitrail.runtime.scheduled.azure_host import origin_of, seconds_of
from aitrail.runtime.scheduled.azure_runs import configuration
from aitrail.secrets import Secrets, check_reference
from aitrail.secrets_azure import resolve
from aitrail.testing.azure_function import IdentityEndpoint
from aitrail.testing.certificates import Authority

MONITOR = "https://monitor.azure.com/.default"


@pytest.fixture
def endpoint():
    running = IdentityEndpoint()
    running.tokens["https://monitor.azure.com"] = lambda: "the-token"
    yield running
    running.close()


def test_a_token_is_asked_for_as_the_platform_says(endpoint):
    token = ManagedIdentity(environment=endpoint.settings).get_token(MONITOR)
    assert token.token == "the-token"
    assert token.expires_on > time.time() + 3_000
    assert endpoint.asked == [
        {"resource": "https://monitor.azure.com", "api-version": "2019-08-01", "client_id": "client-of-the-app"}
    ]
    ManagedIdentity("another", endpoint.settings).get_token(MONITOR)
    assert endpoint.asked[-1]["client_id"] == "another"
    settings = {name: value for name, value in endpoint.settings.items() if name != "AZURE_CLIENT_ID"}
    ManagedIdentity(environment=settings).get_token(MONITOR)
    assert "client_id" not in endpoint.asked[-1], "the system-assigned identity"


def test_outside_of_a_function_app_there_is_none():
    assert not in_function_app({})
    assert not in_function_app({"IDENTITY_ENDPOINT": "http://x"})
    with pytest.raises(CredentialUnavailableError):
        ManagedIdentity(environment={}).get_token(MONITOR)


def test_a_refusal_is_an_alarm_and_silence_is_waited_for(endpoint):
    tokens = Tokens(ManagedIdentity(environment=endpoint.settings), MONITOR, time.time, "destinations.sentinel")
    endpoint.status = 400
    with pytest.raises(AuthError, match="CredentialUnavailableError"):
        tokens.current()
    endpoint.status = 500
    with pytest.raises(TransientError):
        tokens.current()
    endpoint.status = 200
    assert tokens.current() == "the-token"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"access_token":"t"}', b'{"access_token":"t","expires_on":"x"}']
)
def test_an_answer_that_is_no_token_never_shows_itself(body):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    settings = {"IDENTITY_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}/x", "IDENTITY_HEADER": "s"}
    try:
        with pytest.raises(OSError, match="gives no token") as caught:
            ManagedIdentity(environment=settings).get_token(MONITOR)
        assert "access_token" not in str(caught.value)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_nobody_at_the_endpoint_is_no_bug():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings = {"IDENTITY_ENDPOINT": f"http://127.0.0.1:{taken.getsockname()[1]}/x", "IDENTITY_HEADER": "s"}
        with pytest.raises(OSError, match=r"refused|Errno"):
            ManagedIdentity(environment=settings).get_token(MONITOR)


def test_in_a_function_app_no_sdk_is_asked(endpoint, monkeypatch):
    for name, value in endpoint.settings.items():
        monkeypatch.setenv(name, value)
    assert isinstance(default_credential("destinations.sentinel"), ManagedIdentity)
    from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError

    from aitrail.sources._azure_identity import AppIdentity
    from aitrail.sources._azure_identity import default_credential as of_sources

    identity = of_sources("")
    assert isinstance(identity, AppIdentity)
    assert identity.get_token(MONITOR).token == "the-token"
    endpoint.status = 400
    with pytest.raises(ClientAuthenticationError):
        identity.get_token(MONITOR)
    endpoint.status = 500
    with pytest.raises(ServiceRequestError):
        identity.get_token(MONITOR)
    identity.close()


# -- Key Vault


class Vault(http.server.BaseHTTPRequestHandler):
    """A vault with one secret; ``script`` is what the next requests get."""

    script: typing.ClassVar[list[tuple[int, bytes]]] = []
    seen: typing.ClassVar[list[tuple[str, str]]] = []

    def do_GET(self):
        self.seen.append((self.path, self.headers["Authorization"]))
        usual = (200, json.dumps({"value": "s3cret", "id": "https://v/secrets/hash/1"}).encode())
        status, body = self.script.pop(0) if self.script else usual
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Credential:
    def get_token(self, *scopes):
        assert scopes == ("https://vault.azure.net/.default",)
        return type("T", (), {"token": "vault-token"})


@pytest.fixture(scope="module")
def vault():
    authority = Authority()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Vault)
    server.socket = authority.context().wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    import ssl

    trusting = ssl.create_default_context(cafile=authority.ca_file)
    yield lambda secret="hash": resolve(
        f"127.0.0.1:{server.server_address[1]}/{secret}", credential=Credential(), tls=trusting
    )
    server.shutdown()
    server.server_close()
    thread.join(10)
    authority.close()


def test_a_secret_is_read_by_its_name(vault):
    Vault.seen.clear()
    assert vault() == "s3cret"
    assert Vault.seen == [("/secrets/hash?api-version=7.4", "Bearer vault-token")]


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (401, b"{}", AuthError, "HTTP 401"),
        (403, b'{"error":{"message":"s3cret"}}', AuthError, "HTTP 403"),
        (404, b"{}", ConfigError, "no such secret"),
        (429, b"", TransientError, "HTTP 429"),
        (503, b"", TransientError, "HTTP 503"),
        (200, b'{"id":"x"}', TransientError, "gives no secret"),
        (200, b"s3cret", TransientError, "gives no secret"),
    ],
)
def test_what_a_vault_answers_is_the_right_error(vault, status, body, kind, says):
    Vault.script.append((status, body))
    with pytest.raises(kind, match=says) as caught:
        vault()
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    if kind is AuthError:
        assert "Key Vault Secrets User" in caught.value.hint


@pytest.mark.parametrize("name", ["", "vault", "vault/", "/secret", "va ult/x", "v/x/y", "v/x?y", "v/../x", "a@b/x"])
def test_names_that_are_none_call_nobody(name):
    with pytest.raises(ConfigError, match="names no secret"):
        resolve(name, credential=Credential())


def test_a_certificate_that_is_not_trusted_ends_it(vault):
    port = (
        vault.__closure__
        and next(
            cell.cell_contents for cell in vault.__closure__ if hasattr(cell.cell_contents, "server_address")
        ).server_address[1]
    )
    with pytest.raises(TransientError, match="SSL"):
        resolve(f"127.0.0.1:{port}/hash", credential=Credential())


def test_references_to_vaults_are_references(monkeypatch):
    assert check_reference("azure-kv:acme/hash") == ""
    with pytest.raises(ConfigError, match="names no secret"):
        Secrets().resolve("azure-kv:nothing")


def test_no_identity_for_the_vault_is_an_alarm():
    class Refusing:
        def get_token(self, *scopes):
            raise CredentialUnavailableError("none")

    with pytest.raises(AuthError, match="no token"):
        resolve("acme/hash", credential=Refusing())


# -- the host


@pytest.mark.parametrize(
    ("metadata", "origin"),
    [
        (None, "eventhub:///ai-logs//"),
        ({}, "eventhub:///ai-logs//"),
        ({"PartitionContext": "rubbish"}, "eventhub:///ai-logs//"),
        ({"PartitionContext": {"PartitionId": 3}}, "eventhub:///ai-logs//"),
        (
            {"PartitionContext": {"FullyQualifiedNamespace": "n.example.com", "PartitionId": "3", "More": 1}},
            "eventhub://n.example.com/ai-logs//3",
        ),
        (
            {"PartitionContext": '{"EventHubName":"h","ConsumerGroup":"g","PartitionId":"3"}'},
            "eventhub:///h/g/3",
        ),
    ],
)
def test_origins_are_of_what_the_host_tells(metadata, origin):
    assert origin_of(metadata, "ai-logs") == origin


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:05:00", 300.0), ("1.00:00:01", 86_401.0), ("-1", 1_800.0), ("", None), ("5 min", None)]
)
def test_time_spans_of_the_host(text, seconds):
    assert seconds_of(text) == seconds


def test_the_configuration_is_the_setting_else_the_file(tmp_path):
    text = '[sources.a]\ntype = "azure_blobs"\n'
    (tmp_path / "aitrail.toml").write_text(text)
    assert list(configuration({"AzureWebJobsScriptRoot": str(tmp_path)}).sources) == ["a"]
    assert list(configuration({"AITRAIL_CONFIG": text.replace("sources.a", "sources.b")}).sources) == ["b"]
    with pytest.raises(ConfigError, match="AITRAIL_CONFIG"):
        configuration({"AITRAIL_CONFIG": "[sources.a"})
