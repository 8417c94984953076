"""What [serve] and [receivers.*] may say: each mistake is named with its place and its fix, before anything listens."""

from pathlib import Path

import pytest

from aitrail.config import load
from aitrail.errors import ConfigError
from aitrail.web.settings import Served, served

GOOD = """
[receivers.gateway]
path = "/ingest/gateway"
tokens = ["env:TOKEN"]
record_type = "litellm"
[receivers.otel]
type = "otlp"
tokens = ["env:TOKEN"]
"""


def read(tmp_path: Path, text: str, host: str | None = None) -> Served:
    path = tmp_path / "aitrail.toml"
    path.write_text(text)
    return served(load(path), host=host)


def test_good(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert found.loopback
    assert (found.serve.host, found.serve.port) == ("127.0.0.1", 8088)
    assert set(found.receivers) == {"gateway", "otel"}


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ('[receivers.x]\ntokens = ["env:T"]', "receivers.x.path", "needs a path"),
        ('[receivers.x]\npath = "no-slash"\ntokens = ["env:T"]', "receivers.x.path", "needs a path"),
        ('[receivers.x]\npath = "/x"', "receivers.x.tokens", "nobody is asked"),
        ('[receivers.x]\npath = "/x"\ntokens = ["s3cret"]', "receivers.x.tokens", "must be a reference"),
        ('[receivers.x]\npath = "/x"\ntokens = ["env:T"]\nopen = true', "receivers.x.open", "leave one"),
        ('[receivers.x]\npath = "/x"\nopen = true\ntenant = "A b"', "receivers.x.tenant", "not allowed"),
        (
            '[receivers.x]\npath = "/x"\nopen = true\nrecord_type = "litelm"',
            "receivers.x.record_type",
            "unknown record",
        ),
        ('[receivers.x]\npath = "/x"\nopen = true\ntoken = "env:T"', "receivers.x.token", "tokens"),
        ('[receivers.x]\npath = "/health"\nopen = true', "receivers.x.path", "the server's own"),
        ('[receivers.x]\npath = "/x"\n[receivers.x.hmac]\n', "receivers.x.hmac.secrets", "no secret"),
        (
            '[receivers.x]\npath = "/x"\n[receivers.x.hmac]\nsecrets = ["env:T"]\nid_header = "a b"',
            "hmac.id_header",
            "header",
        ),
        ('[receivers.x]\ntype = "otlp"\nopen = true\nrecord_type = "litellm"', "receivers.x.type", "leave record_type"),
        ('[receivers.x]\ntype = "grpc"\nopen = true', "receivers.x.type", "enum"),
        (GOOD + '[receivers.y]\npath = "/ingest/gateway"\nopen = true', "receivers.y.path", "receivers.gateway"),
        (GOOD + '[serve]\nhost = "0.0.0.0"', "serve.host", "tls_certificate"),
        (GOOD + '[serve]\ntls_key = "k.pem"', "serve.tls_certificate", "both"),
        (GOOD + '[serve]\ntls_certificate = "c.pem"\ntls_key = "k.pem"', "serve.tls_certificate", "no such file"),
        (GOOD + '[serve]\nclient_ca = "c.pem"', "serve.client_ca", "needs TLS"),
        (GOOD + "[serve]\nport = 70000", "serve.port", "<= 65535"),
        (GOOD + '[serve]\nmetrics_tokens = ["x"]', "serve.metrics_tokens", "must be a reference"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, field: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert field in str(caught.value)
    assert words in f"{caught.value} {caught.value.hint}"
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


def test_an_open_receiver_stays_on_this_machine(tmp_path: Path) -> None:
    text = '[serve]\nbehind_tls_proxy = true\n[receivers.x]\npath = "/x"\nopen = true'
    assert read(tmp_path, text).loopback
    with pytest.raises(ConfigError, match="beyond this machine"):
        read(tmp_path, text, host="0.0.0.0")
    with pytest.raises(ConfigError, match="without TLS"):
        read(tmp_path, GOOD, host="::")
