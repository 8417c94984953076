"""Tokens and signatures: what is admitted, what is refused and how, and that a signature is good once."""

import base64
import hashlib
import hmac
from typing import Any

import pytest

from aitrail.errors import ConfigError
from aitrail.web.auth import Admitted, Gate, Refusal, Replays, Secret
from aitrail.web.settings import HmacSettings, ReceiverSettings

NOW = 1_795_000_000.0
BODY = b'{"a":1}'


class Clock:
    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Vault:
    def __init__(self, **values: str) -> None:
        self.values = values

    def resolve(self, reference: str) -> str:
        try:
            return self.values[reference.removeprefix("env:")]
        except KeyError:
            raise ConfigError("not set") from None


def gate(vault: Vault, clock: Clock | None = None, **settings: Any) -> Gate:
    return Gate("x", ReceiverSettings(path="/x", **settings), vault, clock or Clock())


def sign(
    secret: bytes, body: bytes = BODY, one: str = "msg_1", when: float = NOW, form: str = "v1,{b64}"
) -> dict[str, str]:
    text = b".".join(part for part in (one.encode(), str(int(when)).encode()) if part) + b"." + body
    digest = hmac.new(secret, text, hashlib.sha256).digest()
    signature = form.format(b64=base64.b64encode(digest).decode(), hex=digest.hex())
    return {"webhook-id": one, "webhook-timestamp": str(int(when)), "webhook-signature": signature}


# --- tokens


def test_bearer_token() -> None:
    one = gate(Vault(A="right", B="second"), tokens=("env:A", "env:B"))
    assert one.admit_headers({"authorization": "Bearer right"}) is None
    assert one.admit_headers({"authorization": "bearer second"}) is None
    for sent, status in (("", 401), ("right", 401), ("Basic right", 401), ("Bearer ", 401), ("Bearer wrong", 403)):
        refusal = one.admit_headers({"authorization": sent})
        assert refusal is not None
        assert refusal.status == status
        assert "right" not in refusal.message.replace("right for", "")


def test_token_in_a_header_of_its_own() -> None:
    one = gate(Vault(A="right"), tokens=("env:A",), token_header="X-Api-Key")
    assert one.admit_headers({"x-api-key": "right"}) is None
    refusal = one.admit_headers({"authorization": "Bearer right"})
    assert refusal is not None
    assert "x-api-key" in refusal.message


def test_a_token_that_is_not_text_is_only_wrong() -> None:
    one = gate(Vault(A="right"), tokens=("env:A",))
    refusal = one.admit_headers({"authorization": "Bearer r\xefght\x00"})
    assert refusal is not None
    assert refusal.status == 403


def test_a_secret_can_be_replaced_while_it_runs() -> None:
    clock, vault = Clock(), Vault(A="old")
    secret = Secret(("env:A",), vault, clock)
    vault.values["A"] = "new"
    assert secret.values() == [b"old"]
    clock.time += 61
    assert secret.values() == [b"new"]
    del vault.values["A"]
    clock.time += 61
    assert secret.values() == [b"new"]


def test_a_secret_that_is_not_there_is_said_at_the_start() -> None:
    with pytest.raises(ConfigError):
        gate(Vault(), tokens=("env:A",))


# --- signatures


def signed(clock: Clock | None = None, secret: str = "shared", **settings: Any) -> Gate:
    return gate(Vault(S=secret), clock, hmac=HmacSettings(secrets=("env:S",), **settings))


@pytest.mark.parametrize("form", ["v1,{b64}", "v1={hex}", "sha256={hex}", "{hex}", "{b64}", "v1,AAAA v1,{b64}"])
def test_right_signatures_in_any_form(form: str) -> None:
    assert isinstance(signed().admit_body(sign(b"shared", form=form), BODY), Admitted)


def test_standard_webhooks_secret() -> None:
    secret = base64.b64encode(b"raw key bytes").decode()
    assert isinstance(signed(secret=f"whsec_{secret}").admit_body(sign(b"raw key bytes"), BODY), Admitted)


def test_headers_of_its_own_and_no_id() -> None:
    one = signed(signature_header="X-Sig", timestamp_header="X-Time", id_header="")
    headers = sign(b"shared", one="")
    sent = {"x-sig": headers["webhook-signature"], "x-time": headers["webhook-timestamp"]}
    assert isinstance(one.admit_body(sent, BODY), Admitted)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"webhook-signature": ""}, "signature_missing"),
        ({"webhook-timestamp": ""}, "signature_missing"),
        ({"webhook-id": ""}, "signature_missing"),
        ({"webhook-id": "msg_2"}, "signature_wrong"),
        ({"webhook-timestamp": "yesterday"}, "signature_invalid"),
        ({"webhook-timestamp": "-1"}, "signature_invalid"),
        ({"webhook-timestamp": str(int(NOW) - 301)}, "timestamp_out_of_tolerance"),
        ({"webhook-timestamp": str(int(NOW) + 301)}, "timestamp_out_of_tolerance"),
        ({"webhook-timestamp": str(int(NOW) - 1)}, "signature_wrong"),
        ({"webhook-signature": "v1,"}, "signature_wrong"),
        ({"webhook-signature": "v1," + "A" * 43 + "="}, "signature_wrong"),
        ({"webhook-signature": " ".join(["v1," + "A" * 43 + "="] * 500)}, "signature_wrong"),
    ],
)
def test_wrong_signatures(change: dict[str, str], code: str) -> None:
    refusal = signed().admit_body(sign(b"shared") | change, BODY)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (401, code)


def test_another_body_or_secret() -> None:
    for headers, body in ((sign(b"shared"), BODY + b" "), (sign(b"other"), BODY)):
        refusal = signed().admit_body(headers, body)
        assert isinstance(refusal, Refusal)
        assert refusal.code == "signature_wrong"


def test_both_secrets_are_good_while_one_is_replaced() -> None:
    one = gate(Vault(S="old", T="new"), hmac=HmacSettings(secrets=("env:S", "env:T")))
    for number, secret in enumerate((b"old", b"new")):
        assert isinstance(one.admit_body(sign(secret, one=f"m{number}"), BODY), Admitted)


def test_a_signature_is_good_once() -> None:
    one = signed()
    first = one.admit_body(sign(b"shared"), BODY)
    assert isinstance(first, Admitted)
    busy = one.admit_body(sign(b"shared"), BODY)
    assert isinstance(busy, Refusal)
    assert (busy.status, busy.retry_after) == (503, 1.0)
    first.end(True)
    replayed = one.admit_body(sign(b"shared"), BODY)
    assert isinstance(replayed, Refusal)
    assert (replayed.status, replayed.code) == (409, "replayed")


def test_what_could_not_be_taken_may_come_again() -> None:
    one = signed()
    first = one.admit_body(sign(b"shared"), BODY)
    assert isinstance(first, Admitted)
    first.end(False)
    assert isinstance(one.admit_body(sign(b"shared"), BODY), Admitted)


# --- the memory for replays


def test_replays_are_forgotten_only_when_too_old_to_be_accepted() -> None:
    seen = Replays(100, 300.0)
    assert seen.begin(b"a", NOW, NOW) == "new"
    seen.end(b"a", NOW, taken=True)
    assert seen.begin(b"a", NOW, NOW + 300) == "seen"
    assert seen.begin(b"b", NOW + 301, NOW + 301) == "new"
    assert len(seen._times) == 0


def test_a_full_memory_refuses_what_is_as_old_as_what_it_forgot() -> None:
    seen = Replays(100, 300.0)
    for number in range(150):
        when = NOW + number
        assert seen.begin(str(number).encode(), when, when) == "new"
        seen.end(str(number).encode(), when, taken=True)
    assert len(seen._times) == 100
    now = NOW + 150
    answers = [seen.begin(str(number).encode(), NOW + number, now) for number in range(150)]
    assert answers == ["stale"] * 50 + ["seen"] * 100
    assert seen.begin(b"another", NOW + 49, now) == "stale"
    assert seen.begin(b"another", NOW + 50, now) == "new"
