"""Secrets and identifiers: found with valid checksums, left alone when they only look so."""

import base64
import random
import string

import pytest

from aitrail.classify import checks
from aitrail.classify.contract import Text
from aitrail.classify.default import DefaultClassifier

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


@pytest.fixture(scope="module")
def judge():
    return DefaultClassifier()


def kinds(judge, text):
    return {leak.kind for leak in judge.classify([Text("prompt", "user", text)]).leaks}


def run(rnd, count, alphabet=ALNUM):
    return "".join(rnd.choice(alphabet) for _ in range(count))


SECRETS = {
    "aws_access_key_id": lambda r: "AKIA" + run(r, 16, string.ascii_uppercase + "234567"),
    "aws_secret_access_key": lambda r: "aws_secret_access_key = " + run(r, 40),
    "aws_bedrock_api_key": lambda r: (
        "ABSK" + base64.b64encode(b"BedrockAPIKey-x-at-111122223333:" + r.randbytes(40)).decode()
    ),
    "azure_storage_key": lambda r: "AccountKey=" + base64.b64encode(r.randbytes(64)).decode(),
    "azure_client_secret": lambda r: run(r, 3) + "8Q~" + run(r, 34),
    "azure_ai_key": lambda r: "AZURE_OPENAI_API_KEY=" + run(r, 32, HEX),
    "openai_api_key": lambda r: "sk-" + run(r, 20) + "T3BlbkFJ" + run(r, 20),
    "anthropic_api_key": lambda r: "sk-ant-api03-" + run(r, 93) + "AA",
    "huggingface_token": lambda r: "hf_" + run(r, 34, string.ascii_letters),
    "gcp_api_key": lambda r: "AIza" + run(r, 35),
    "github_token": lambda r: "ghp_" + run(r, 36),
    "gitlab_token": lambda r: "glpat-" + run(r, 20),
    "stripe_key": lambda r: "sk_live_" + run(r, 24),
    "sendgrid_key": lambda r: f"SG.{run(r, 22)}.{run(r, 43)}",
    "jwt": lambda r: f"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ{run(r, 60)}.{run(r, 43)}",
    "private_key": lambda r: (
        f"-----BEGIN RSA PRIVATE KEY-----\n{run(r, 64)}\n{run(r, 64)}\n-----END RSA PRIVATE KEY-----"
    ),
    "connection_string_password": lambda r: f"postgresql://app:{run(r, 12)}@db.example.com:5432/prod",
    "password": lambda r: f"my password is {run(r, 6)}{run(r, 3, string.digits)}!",
    "bearer_token": lambda r: "Authorization: Bearer " + run(r, 40),
    "generic_secret": lambda r: f'client_secret="{run(r, 32)}"',
    "slack_token": lambda r: f"xoxb-{run(r, 12, string.digits)}-{run(r, 12, string.digits)}-{run(r, 24)}",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_are_found_in_every_setting(judge, kind):
    rnd = random.Random(kind)
    settings = ["{}", "Please use {} to log in.", "export X={}\nrun it", 'x = "{}"']
    for number in range(40):
        text = settings[number % 4].format(SECRETS[kind](rnd))
        assert kind in kinds(judge, text), text[:40]


def valid(check, make, rnd):
    validator = checks.validator(check)
    return next(value for value in (make(rnd) for _ in range(100_000)) if validator(value))


def digits(rnd, count):
    return run(rnd, count, string.digits)


def ymd(rnd):
    return f"{rnd.randrange(50, 99):02d}{rnd.randrange(1, 13):02d}{rnd.randrange(1, 29):02d}"


IDENTIFIERS = {
    "card_number": ("own.card", lambda r: "4" + digits(r, 15), "card"),
    "pl_pesel": ("pl.pesel", lambda r: ymd(r) + digits(r, 5), "PESEL"),
    "es_dni": ("es.dni", lambda r: digits(r, 8) + r.choice(string.ascii_uppercase), "DNI"),
    "nl_bsn": ("nl.bsn", lambda r: digits(r, 9), "BSN"),
    "br_cpf": ("br.cpf", lambda r: f"{digits(r, 3)}.{digits(r, 3)}.{digits(r, 3)}-{digits(r, 2)}", "CPF"),
    "ca_sin": ("ca.sin", lambda r: f"4{digits(r, 2)} {digits(r, 3)} {digits(r, 3)}", "SIN"),
    "au_tfn": ("au.tfn", lambda r: digits(r, 9), "tax file number"),
    "in_aadhaar": ("in_.aadhaar", lambda r: f"2{digits(r, 3)} {digits(r, 4)} {digits(r, 4)}", "Aadhaar"),
    "uk_nhs_number": ("gb.nhs", lambda r: digits(r, 10), "NHS number"),
    "fr_nir": ("fr.nir", lambda r: f"1{r.randrange(40, 99):02d}{r.randrange(1, 13):02d}75{digits(r, 8)}", "NIR"),
    "de_tax_id": ("de.idnr", lambda r: r.choice("123456789") + digits(r, 10), "Steuer-ID"),
    "ch_ahv": ("ch.ssn", lambda r: f"756.{digits(r, 4)}.{digits(r, 4)}.{digits(r, 2)}", "AHV"),
    "se_personnummer": ("se.personnummer", lambda r: f"{ymd(r)}-{digits(r, 4)}", "personnummer"),
    "us_ssn": ("us.ssn", lambda r: f"{r.randrange(100, 665)}-{r.randrange(10, 99)}-{digits(r, 4)}", "SSN"),
    "us_routing_number": ("us.rtn", lambda r: "02" + digits(r, 7), "routing number"),
    "sg_nric": ("own.nric", lambda r: "S" + digits(r, 7) + r.choice(string.ascii_uppercase), "NRIC"),
    "tr_tckn": ("tr.tckimlik", lambda r: "1" + digits(r, 10), "TC Kimlik"),
}


@pytest.mark.parametrize("kind", IDENTIFIERS)
def test_identifiers_with_valid_checksums(judge, kind):
    check, make, name = IDENTIFIERS[kind]
    rnd = random.Random(kind)
    for sentence in ("My {n} is {v}.", "{n}: {v}", "Record: Ana Silva, {n} {v}, active", "check {v} ({n})"):
        text = sentence.format(n=name, v=valid(check, make, rnd))
        assert kind in kinds(judge, text), text


@pytest.mark.parametrize(
    "kind", ["card_number", "pl_pesel", "nl_bsn", "br_cpf", "au_tfn", "uk_nhs_number", "us_routing_number"]
)
def test_a_wrong_check_digit_is_no_identifier(judge, kind):
    check, make, name = IDENTIFIERS[kind]
    rnd = random.Random(kind)
    for _ in range(20):
        value = valid(check, make, rnd)
        wrong = value[:-1] + str((int(value[-1]) + 1) % 10)
        if not checks.validator(check)(wrong):
            assert kind not in kinds(judge, f"My {name} is {wrong}.")


def test_iban_with_text_behind_it(judge):
    text = "Send it to DE89 3704 0044 0532 0130 00 to pay for May"
    leak = next(leak for leak in judge.classify([Text("prompt", "user", text)]).leaks if leak.kind == "iban")
    assert text[leak.start : leak.end] == "DE89 3704 0044 0532 0130 00"


LOOKALIKES = [
    "id 550e8400-e29b-41d4-a716-446655440000",
    "Invoice number 4485739201",
    "invoice 4111111111111111",
    "order #401234567",
    "version 10.2.3.4",
    "2026-03-12T10:22:33.123456Z",
    "ISBN 978-3-1614-8410-0",
    'api_key = "<YOUR_API_KEY>"',
    "password: ********",
    "AKIAIOSFODNN7EXAMPLE",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    'token = os.environ["TOKEN"]',
    "password = get_password()",
    "the password field is required",
    '"integrity": "sha512-' + base64.b64encode(bytes(range(64))).decode() + '"',
    "sha256:" + "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    "chr1:123456789-223456789",
    "lat 48.8583701, lon 2.2944813",
    "account 111122223333",
    "ghp_tooShort123",
    "AKIA12345",
    "secret: changeme",
    "git@github.com:example/repo.git",
]


@pytest.mark.parametrize("text", LOOKALIKES)
def test_lookalikes_are_left_alone(judge, text):
    assert kinds(judge, f"Please look at {text} and explain") == set()


@pytest.mark.parametrize("value", ["34", "37"])
def test_card_schemes_have_their_lengths(value):
    assert not checks.card(value + "0" * 14)


def test_many_candidates_end_in_one_finding_that_hides_the_rest(judge):
    text = "a.b@example.com " * 25_000
    verdict = judge.classify([Text("prompt", "user", text)])
    assert verdict.truncated
    assert verdict.leaks[-1].kind == "unchecked_rest"
    assert max(leak.end for leak in verdict.leaks) == len(text)


def test_offsets_hold_in_texts_that_are_not_latin(judge):
    text = "メール: ines.moreau@example.com です、合計 \uff14\uff12"
    leak = judge.classify([Text("prompt", "user", text)]).leaks[0]
    assert text[leak.start : leak.end] == "ines.moreau@example.com"
