"""The Sentinel destination: every row of its tables, rows of the table, limits on the real body, and tokens."""

import json
import logging
import random
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from aitrail.clock import iso_ms
from aitrail.destinations._azure_codes import CODES, ROLE, STATUSES, judge
from aitrail.destinations._azure_token import Tokens, default_credential
from aitrail.destinations._sentinel_settings import SentinelSettings
from aitrail.destinations.sentinel import SentinelDestination
from aitrail.destinations.sentinel_rows import FIELD_BYTES, STREAMS, Rows, access_layout
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.event import AccessEvent, encode
from aitrail.ports import EncodedEvent, Verdict
from aitrail.testing.dce_peer import DCR, STREAM, dce_peer
from aitrail.testing.events import HOSTILE_TEXTS, hostile_events, make_event, make_events, oversize_event
from aitrail.testing.faults import Reply
from aitrail.testing.peer import Behaviour

NOW = 1_795_424_400.0


class Given:
    def __init__(self, token, expires_on):
        self.token = token
        self.expires_on = expires_on


class FileCredential:
    """Gives the token of the peer's file; counts how often it is asked."""

    def __init__(self, path, seconds=3600):
        self.path = path
        self.seconds = seconds
        self.asked = 0

    def get_token(self, *scopes):
        assert scopes == ("https://monitor.azure.com/.default",)
        self.asked += 1
        return Given(Path(self.path).read_text(), int(time.time()) + self.seconds)


@pytest.fixture
def peer():
    one = dce_peer()
    yield one
    one.close()


@pytest.fixture
def destination(peer):
    one = make(peer)
    yield one
    one.close()


def make(peer, credential=None, **settings):
    address = peer.address
    given = {"url": address["url"], "dcr": DCR, "proxy": "none"} | settings
    return SentinelDestination(SentinelSettings(**given), credential or FileCredential(address["token_file"]))


def send(destination, events, seconds=30.0):
    return destination.send(events, time.monotonic() + seconds).verdicts


def tally(verdicts):
    return Counter((verdict.status, verdict.code) for verdict in verdicts)


def encoded(event):
    return EncodedEvent(event.event_id, event.timestamp, encode(event))


def event_with(**values):
    base = {"event_id": "e" * 32, "timestamp": "2026-11-23T09:14:05.120Z", "tenant_id": "acme", "source": "litellm"}
    return AccessEvent(**(base | values))


# --- tables


# Written out again on purpose: a change of the table has to be made twice, and be meant.
STATUS_ROWS = [
    (204, "taken"), (200, "config"), (202, "config"), (400, "data"), (401, "auth"), (403, "auth"), (404, "config"),
    (405, "config"), (407, "config"), (408, "retry"), (413, "too_large"), (418, "config"), (425, "retry"),
    (429, "retry"), (500, "retry"), (502, "retry"), (503, "retry"), (504, "retry"), (599, "retry"),
]  # fmt: skip
CODE_ROWS = {
    "ContentLengthLimitExceeded": "too_large",
    "RecordsTimeRangeIsMoreThan30Minutes": "config",
    "TimeoutExpired": "retry",
}
BODIES = [b"", b"{}", b"<html></html>", b'{"error":{}}', b'{"error":"x"}', b"[" * 100_000, b"\xff"]


@pytest.mark.parametrize(("status", "action"), STATUS_ROWS)
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_every_status_row_whatever_the_body(status, action, body):
    assert judge(status, body).action == action


@pytest.mark.parametrize(("code", "action"), CODE_ROWS.items())
@pytest.mark.parametrize("status", [400, 413])
def test_every_code_row(code, action, status):
    assert judge(status, msgspec.json.encode({"error": {"code": code}})).action == action


def test_the_rows_above_are_all_rows_of_the_tables():
    assert set(STATUSES) <= {status for status, _ in STATUS_ROWS}
    assert set(CODES) == {code.lower() for code in CODE_ROWS}


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (200, ConfigError, (DCR, STREAM)),
        (401, AuthError, ("token", DCR)),
        (403, AuthError, (ROLE, DCR)),
        (404, ConfigError, (DCR, STREAM)),
        (408, TransientError, ()),
        (429, TransientError, ()),
        (500, TransientError, ()),
        (502, TransientError, ()),
        (503, TransientError, ()),
        (504, TransientError, ()),
    ],
)
def test_a_refused_call_judges_nothing_and_says_what_is_wrong(peer, destination, status, error, words):
    peer._server.answer = lambda request, behaviour: Reply(status, b"", {"Retry-After": "9"})
    with pytest.raises(error) as raised:
        send(destination, make_events(3))
    assert all(word in str(raised.value) for word in words)
    assert raised.value.hint
    if error is TransientError:
        assert raised.value.retry_after == 9.0


# --- the 64 KB rule


HASH = "hmac-sha256:k1:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x" * FIELD_BYTES, FIELD_BYTES),
        ("x" * (FIELD_BYTES + 1), FIELD_BYTES),
        ("é" * FIELD_BYTES, FIELD_BYTES),
        ("€" * 32_000, FIELD_BYTES - FIELD_BYTES % 3),
        ("\U0001f9ff" * 32_000, FIELD_BYTES),
        ('"\\\n' * 30_000, FIELD_BYTES),
    ],
    ids=["fits", "one more", "two bytes", "three bytes", "four bytes", "escapes"],
)
def test_a_text_above_64_kb_is_cut_and_marked_and_its_hash_is_kept(peer, destination, text, kept):
    event = event_with(prompt_text=text, prompt_hash=HASH, content_mode="full")
    assert tally(send(destination, [encoded(event)])) == {("delivered", ""): 1}
    row = json.loads(peer.bodies(event.event_id)[0])
    assert len(row["PromptText"].encode()) == kept
    assert text.startswith(row["PromptText"])
    assert row["PromptHash"] == HASH
    cut = len(text.encode()) > FIELD_BYTES
    assert row.get("Truncated") is (True if cut else None)
    assert row.get("Flags") == (["text_truncated"] if cut else None)
    assert peer.dialect.cut == 0


def test_a_sealed_text_goes_whole_or_not_at_all(peer, destination):
    """A part of a sealed text cannot be opened: it would only look like data."""
    sealed = "sealed:v1:aa:" + "A" * 70_000
    event = event_with(prompt_text=sealed, response_text="sealed:v1:aa:AAAA", prompt_hash=HASH, content_mode="sealed")
    send(destination, [encoded(event)])
    row = json.loads(peer.bodies(event.event_id)[0])
    assert "PromptText" not in row
    assert row["ResponseText"] == "sealed:v1:aa:AAAA"
    assert row["PromptHash"] == HASH
    assert row["Truncated"] is True


# --- the body


def test_no_body_is_above_950_kb_whatever_the_sizes(peer):
    dice = random.Random(11)
    one = make(peer)
    events = [
        make_event(number, prompt_text='é"' * dice.choice([1, 50, 900, 9_000]), prompt_hash=HASH)
        for number in range(700)
    ]
    assert tally(send(one, events, 30.0)) == {("delivered", ""): 700}
    one.close()
    sizes = [len(request.plain) for request in peer.dialect.requests]
    assert max(sizes) <= 950_000
    # Full ones are filled well: no request is wasted.
    assert sorted(sizes)[-2] > 900_000
    assert peer.dialect.over == 0


def test_the_request_is_as_documented(peer, destination):
    events = make_events(3)
    send(destination, events)
    request = peer.dialect.requests[0]
    assert request.method == "POST"
    assert request.path == f"/dataCollectionRules/{DCR}/streams/{STREAM}"
    assert request.query == {"api-version": "2023-01-01"}
    assert request.headers["content-encoding"] == "gzip"
    assert request.headers["content-type"] == "application/json"
    assert [row["EventUid"] for row in json.loads(request.plain)] == [event.event_id for event in events]


def test_a_resend_has_the_same_bytes(peer, destination):
    events = make_events(5)
    peer.script(Behaviour("reset_mid_response"))
    with pytest.raises(TransientError):
        send(destination, events)
    send(destination, events)
    assert peer.received() == [event.event_id for event in events] * 2
    for event in events:
        assert len(set(peer.bodies(event.event_id))) == 1


def test_an_event_above_its_limit_is_cut_and_marked_or_rejected_by_policy(peer):
    big = make_event(1, prompt_text="x" * 60_000, response_text="y" * 60_000, prompt_hash=HASH)
    for policy, expected in (("truncate", "delivered"), ("reject", "rejected")):
        one = make(peer, event_bytes=50_000, oversize=policy)
        assert send(one, [big])[0].status == expected
        one.close()
    row = json.loads(peer.bodies(big.event_id)[0])
    assert row["Truncated"] is True
    assert row["PromptHash"] == HASH


def test_a_row_that_is_longer_than_a_body_is_never_sent(peer):
    one = make(peer, batch_bytes=60_000, event_bytes=60_000)
    texts = {"user_agent": "a" * 59_500}
    verdicts = send(one, [make_event(1, prompt_text="", **texts), *make_events(3, first=5)])
    assert [verdict.status for verdict in verdicts[1:]] == ["delivered"] * 3
    assert verdicts[0].status in ("delivered", "rejected")
    assert peer.traffic.largest <= 60_000
    one.close()


def test_413_halves_down_to_the_one(peer, destination):
    peer.script(Behaviour("too_large", times=0, limit=3_000))
    verdicts = send(destination, [*make_events(20), oversize_event(99, 40_000)])
    assert [verdict.status for verdict in verdicts[:20]] == ["delivered"] * 20
    assert verdicts[20] == Verdict("rejected", code="event_too_large") or verdicts[20].status == "delivered"
    assert peer.traffic.requests < 40


@pytest.mark.parametrize("bad", [(0,), (63,), (17,), (3, 40)])
def test_a_poison_record_is_found_by_halving(peer, destination, bad):
    events = make_events(64)
    peer.script(Behaviour("refuse_items", times=0, ids=tuple(events[place].event_id for place in bad)))
    verdicts = send(destination, events)
    assert [
        place for place, verdict in enumerate(verdicts) if verdict == Verdict("rejected", code="azure_400")
    ] == list(bad)
    assert tally(verdicts)["delivered", ""] == 64 - len(bad)
    assert sorted(peer.received()) == sorted(event.event_id for event in events if event.event_id not in {
        events[place].event_id for place in bad
    })  # fmt: skip
    assert peer.traffic.requests <= 1 + 2 * 6 * len(bad)


def test_when_every_record_is_refused_the_declaration_is_wrong_not_the_records(peer, destination):
    events = make_events(12)
    poison = Behaviour("refuse_items", times=0, ids=tuple(event.event_id for event in events))
    peer.script(poison)
    assert tally(send(destination, events[:9])) == {("rejected", "azure_400"): 9}
    with pytest.raises(ConfigError, match=STREAM):
        send(destination, events)
    peer.heal()
    send(destination, make_events(1, first=100))
    peer.script(poison)
    assert tally(send(destination, events)) == {("rejected", "azure_400"): 12}


def test_what_was_judged_before_a_failure_stays_judged(peer):
    one = make(peer, batch_events=10)
    peer.script(Behaviour("slow", seconds=0.0), Behaviour("throttle", retry_after="7"))
    verdicts = send(one, make_events(30))
    assert [verdict.status for verdict in verdicts] == ["delivered"] * 10 + ["retry"] * 20
    assert {verdict.retry_after for verdict in verdicts[10:]} == {7.0}
    one.close()


def test_a_request_to_an_auxiliary_table_spans_less_than_half_an_hour(peer):
    peer.dialect.span_seconds = 30 * 60.0
    moments = [0, 600, 1_790, 1_900, 100, 9_000, 9_100, 7_400, 86_400]
    events = [
        encoded(event_with(event_id=f"{number:032x}", timestamp=iso_ms(NOW + seconds)))
        for number, seconds in enumerate(moments)
    ]
    plain = make(peer)
    with pytest.raises(ConfigError) as raised:
        send(plain, events)
    assert "auxiliary" in raised.value.hint
    plain.close()
    one = make(peer, plan="auxiliary")
    assert tally(send(one, events)) == {("delivered", ""): len(events)}
    assert sorted(peer.received()) == [event.event_id for event in events]
    one.close()


def test_large_poison_is_alone(peer):
    one = make(peer, event_bytes=50_000)
    bodies = [b'{"event_id":"\xff' + b"x" * 60_000 + b'"}', b"x" * 60_000, b'{"event_id":"' + b"x" * 60_000]
    poison = [EncodedEvent(f"{number:032x}", "", body) for number, body in enumerate(bodies)]
    verdicts = send(one, [*poison, *make_events(2)])
    assert [verdict.status for verdict in verdicts] == ["rejected"] * 3 + ["delivered"] * 2
    one.close()


def test_poison_is_alone(peer, destination):
    events = make_events(3)
    torn = EncodedEvent("0" * 32, events[0].timestamp, b'{"event_id":"')
    verdicts = send(destination, [events[0], torn, *events[1:]])
    assert verdicts[1] == Verdict("rejected", code="unencodable")
    assert tally(verdicts)["delivered", ""] == 3


def test_hostile_texts_arrive_unchanged(peer, destination):
    events = hostile_events()
    assert tally(send(destination, events)) == {("delivered", ""): len(events)}
    for event, text in zip(events, HOSTILE_TEXTS.values(), strict=True):
        assert json.loads(peer.bodies(event.event_id)[0])["PromptText"] == text


def test_nothing_of_an_event_or_token_is_logged_or_quoted(peer, caplog):
    caplog.set_level(logging.DEBUG)
    one = make(peer)
    secret = "zebra-crossing-7781"
    peer.script(Behaviour("refuse_items", times=1, ids=(make_event(2).event_id,)))
    send(one, [make_event(2, prompt_text=secret)])
    peer.script(Behaviour("forbidden"))
    with pytest.raises(AuthError) as raised:
        send(one, [make_event(3, prompt_text=secret)])
    one.close()
    told = caplog.text + str(raised.value) + raised.value.hint
    assert secret not in told
    assert peer._token not in told


# --- tokens


def test_a_token_is_kept_until_five_minutes_before_it_expires():
    asked = []
    moment = [NOW]

    class Credential:
        def get_token(self, *scopes):
            asked.append(scopes)
            return Given(f"token{len(asked)}", int(moment[0]) + 3_600)

    tokens = Tokens(Credential(), "scope", lambda: moment[0], "destinations.sentinel")
    assert tokens.current() == tokens.current() == "token1"
    moment[0] += 3_299
    assert tokens.current() == "token1"
    moment[0] += 1
    assert tokens.current() == "token2"
    assert tokens.current(instead_of="token1") == "token2"
    assert tokens.current(instead_of="token2") == "token3"
    assert asked == [("scope",)] * 3


def test_a_refused_token_is_renewed_once(peer):
    credential = FileCredential(peer.address["token_file"])
    one = make(peer, credential)
    send(one, make_events(2))
    send(one, make_events(2, first=10))
    assert credential.asked == 1
    peer.script(Behaviour("rotate"))
    assert tally(send(one, make_events(2, first=20))) == {("delivered", ""): 2}
    assert credential.asked == 2
    before = peer.traffic.requests
    peer.script(Behaviour("unauthorized", times=9))
    with pytest.raises(AuthError, match="401"):
        send(one, make_events(2, first=30))
    assert peer.traffic.requests == before + 1, "the same token is not tried again"
    one.close()


class ClientAuthenticationError(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(ClientAuthenticationError, AuthError), (OSError, TransientError), (ValueError, TransientError)],
)
def test_a_credential_that_fails_is_told_apart_and_never_quoted(peer, raised, expected):
    class Failing:
        def get_token(self, *scopes):
            raise raised("client_secret=hunter2")

    one = make(peer, Failing())
    with pytest.raises(expected) as told:
        send(one, make_events(1))
    assert "hunter2" not in str(told.value) + told.value.hint
    assert "Entra" in one.check()[0]
    one.close()


def test_the_errors_of_azure_identity_are_known_by_name():
    identity = pytest.importorskip("azure.identity")
    core = pytest.importorskip("azure.core.exceptions")
    from aitrail.destinations._azure_token import _REFUSED

    names = {identity.CredentialUnavailableError, identity.AuthenticationRequiredError, core.ClientAuthenticationError}
    assert {one.__name__ for one in names} == _REFUSED
    assert hasattr(default_credential("destinations.sentinel"), "get_token")


# --- settings, check, verify


@pytest.mark.parametrize(
    "settings",
    [
        {"dcr": "dcr-1"},
        {"dcr": "/subscriptions/x/providers/Microsoft.Insights/dataCollectionRules/x"},
        {"dcr": DCR + "/../x"},
        {"stream": "nothing"},
        {"stream_name": "Custom/../x"},
        {"url": "http://example.com"},
    ],
)
def test_settings_that_cannot_work_are_refused(peer, settings):
    with pytest.raises(ConfigError) as raised:
        make(peer, **settings)
    assert "destinations.sentinel" in str(raised.value)


def test_check_names_what_is_missing_and_sends_no_row(peer, destination):
    assert destination.check() == []
    peer.dialect.role = False
    assert ROLE in destination.check()[0]
    peer.dialect.role = True
    other = make(peer, stream_name="Custom-Other_CL")
    assert "Custom-Other_CL" in other.check()[0]
    other.close()
    peer.script(Behaviour("down"))
    assert "refused" in destination.check()[0]
    assert peer.received() == []
    assert peer.traffic.requests == 0
    assert destination.confirm("x").status == "retry"


def test_the_official_client_finds_the_peer_right():
    """azure-monitor-ingestion is written by others: what it uploads arrives, so the peer speaks as it expects."""
    ingestion = pytest.importorskip("azure.monitor.ingestion")
    credentials = pytest.importorskip("azure.core.credentials")
    peer = dce_peer(tls=True)

    class Credential:
        def get_token(self, *scopes, **options):
            token = Path(peer.address["token_file"]).read_text()
            return credentials.AccessToken(token, int(time.time()) + 3_600)

    rows = [json.loads(Rows(access_layout).row(event)) for event in make_events(50)]
    with ingestion.LogsIngestionClient(
        peer.address["url"], Credential(), connection_verify=peer.address["ca_file"]
    ) as client:
        client.upload(DCR, STREAM, rows)
    assert peer.received() == [event.event_id for event in make_events(50)]
    peer.close()


def test_the_page_names_every_row():
    page = (Path(__file__).parents[2] / "docs/destinations/sentinel.md").read_text()
    for code in CODE_ROWS:
        assert f"`{code}`" in page
    for status in set(STATUSES):
        assert str(status) in page, status
    for name, kind in STREAMS.items():
        assert f"| `{name}` | `{kind.stream_name}`" in page
