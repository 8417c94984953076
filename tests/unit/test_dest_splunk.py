"""The HEC destination, row by row: what each answer of a collector makes of the events."""

import gzip
import json
import time
from pathlib import Path

import pytest

from aitrail.destinations._batching import fit, pack
from aitrail.destinations._hec_acks import Acks, Token, read_token
from aitrail.destinations._hec_codes import CODES, STATUSES
from aitrail.destinations._raw_fields import texts_last
from aitrail.destinations._splunk_settings import SplunkSettings
from aitrail.destinations.splunk import SplunkDestination
from aitrail.errors import AuthError, ConfigError, TransientError
from aitrail.event import decode, encode
from aitrail.net.http import Response
from aitrail.ports import EncodedEvent
from aitrail.schema.catalog import example_event, fields
from aitrail.streams import Finding, encoded
from aitrail.testing.events import make_events, oversize_event
from aitrail.testing.hec_peer import HecPeer

AT = "2026-11-23T09:14:05.120Z"
# Code -> (HTTP status, what becomes of a single event that is answered so). From the documentation, not from the code.
ROWS = {
    0: (200, "delivered"),
    1: (403, AuthError),
    2: (401, AuthError),
    3: (401, AuthError),
    4: (403, AuthError),
    5: (400, "rejected"),
    6: (400, "rejected"),
    7: (400, ConfigError),
    8: (500, TransientError),
    9: (503, TransientError),
    10: (400, ConfigError),
    11: (400, ConfigError),
    12: (400, "rejected"),
    13: (400, "rejected"),
    14: (400, ConfigError),
    15: (400, "rejected"),
    16: (400, ConfigError),
    17: (200, ConfigError),  # a health answer to an event: nobody took it
    18: (503, TransientError),
    19: (503, TransientError),
    20: (503, TransientError),
    21: (400, AuthError),
    22: (400, AuthError),
    23: (503, TransientError),
    24: (200, "delivered"),
    25: (200, "delivered"),
    26: (429, TransientError),
    27: (429, TransientError),
}
# HTTP status without a HEC code. Nothing is delivered or refused on the word of something that is not HEC.
BARE = {
    200: ConfigError,
    204: ConfigError,
    400: ConfigError,
    401: AuthError,
    403: AuthError,
    404: ConfigError,
    405: ConfigError,
    407: ConfigError,
    408: TransientError,
    411: ConfigError,
    415: ConfigError,
    418: ConfigError,
    425: TransientError,
    429: TransientError,
    500: TransientError,
    502: TransientError,
    503: TransientError,
    504: TransientError,
    507: TransientError,
}


class Sender:
    """Answers by a list (the last one for ever) and keeps what it was sent."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.sent = []

    def request(self, method, url, *, deadline, content=b"", headers=None):
        del deadline
        packed = (headers or {}).get("Content-Encoding") == "gzip"
        self.sent.append((method, url, gzip.decompress(content) if packed else content, dict(headers or {})))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ids(self, number):
        lines = self.sent[number][2].splitlines()
        return [json.loads(line)["fields"]["event_id"] for line in lines]

    def close(self):
        pass


class Token42:
    def __init__(self, *values):
        self.values = list(values) or ["secret-token-42"]
        self.asked = 0

    def resolve(self, reference):
        assert reference == "env:HEC"
        self.asked += 1
        return self.values.pop(0) if len(self.values) > 1 else self.values[0]


def say(status, code=None, **more):
    content = {"text": "whatever the server says", **more}
    if code is not None:
        content["code"] = code
    return Response(status, {"content-type": "application/json"}, json.dumps(content).encode())


OK = say(200, 0)


def make(sender, secrets=None, **settings):
    values = {"urls": ("https://hec.example.com:8088",), "token": "env:HEC", "host": "collector", **settings}
    return SplunkDestination(SplunkSettings(**values), secrets or Token42(), sender=sender)


def send(destination, events):
    return [(one.status, one.code) for one in destination.send(events, time.monotonic() + 30).verdicts]


def test_the_table_has_every_row():
    assert set(CODES) == set(ROWS) == set(range(28))
    assert {code: rule.http for code, rule in CODES.items()} == {code: http for code, (http, _) in ROWS.items()}
    assert set(STATUSES) <= set(BARE) | {413}
    for rule in (*CODES.values(), *STATUSES.values()):
        assert rule.hint or rule.action not in ("auth", "config"), rule


@pytest.mark.parametrize(("code", "row"), ROWS.items())
def test_every_code(code, row):
    status, expected = row
    destination = make(Sender(say(status, code)))
    if isinstance(expected, str):
        verdict = destination.send(make_events(1), time.monotonic() + 30).verdicts[0]
        assert verdict.status == expected
        if expected == "rejected":
            assert verdict.code == f"hec_{code}"
        return
    with pytest.raises(expected) as caught:
        send(destination, make_events(1))
    text = f"{caught.value} {caught.value.hint}"
    assert "hec.example.com:8088" in text
    assert f"code {code}" in text or code == 17
    assert "whatever the server says" not in text
    assert "secret-token-42" not in text


@pytest.mark.parametrize(("status", "expected"), BARE.items())
def test_every_status_without_a_code(status, expected):
    for body in (b"", b"<html>hello</html>", b"[1,2]", b'{"code":"0"}', b"{" * 50_000):
        with pytest.raises(expected):
            send(make(Sender(Response(status, {}, body))), make_events(1))


@pytest.mark.parametrize(("status", "code"), [(500, 0), (403, 0), (503, 24), (200, 6), (200, 9), (302, 0)])
def test_code_and_status_that_contradict_each_other_prove_nothing(status, code):
    with pytest.raises((TransientError, AuthError, ConfigError)):
        send(make(Sender(say(status, code))), make_events(1))


def test_unknown_codes_hold():
    with pytest.raises(ConfigError):
        send(make(Sender(say(400, 99))), make_events(1))
    with pytest.raises(TransientError):
        send(make(Sender(say(503, 99))), make_events(1))


def test_envelope():
    sender = Sender(OK)
    event = make_events(1)[0]
    assert send(make(sender, index="idx"), [event]) == [("delivered", "")]
    method, url, body, headers = sender.sent[0]
    assert (method, url) == ("POST", "https://hec.example.com:8088/services/collector/event")
    assert headers["Authorization"] == "Splunk secret-token-42"
    assert "X-Splunk-Request-Channel" not in headers
    envelope = json.loads(body)
    assert envelope == {
        "time": "1795424400.000",
        "host": "collector",
        "source": "aitrail",
        "sourcetype": "ai:access:audit",
        "index": "idx",
        "event": json.loads(event.body),
        "fields": {"event_id": event.event_id},
    }
    assert envelope["event"]["event_id"] == event.event_id


def _long_event(**values):
    event = example_event()
    event.prompt_text = 'say \\","response_text":"x" and ' + "p" * 4_000
    event.response_text = 'é\n\u2028"},' + "r" * 9_000
    for name, value in values.items():
        setattr(event, name, value)
    return EncodedEvent(event.event_id, event.timestamp, encode(event))


def test_texts_go_last_in_long_events_so_that_searches_extract_the_verdicts():
    texts = [field.name for field in fields() if field.kind == "text"]
    assert texts == ["prompt_text", "response_text"]
    long = _long_event()
    sender = Sender(OK)
    assert send(make(sender), [long]) == [("delivered", "")]
    envelope = json.loads(sender.sent[0][2])
    whole = json.loads(long.body)
    assert envelope["event"] == whole
    assert list(envelope["event"]) == [name for name in whole if name not in texts] + texts
    assert envelope["fields"] == {"event_id": long.event_id}
    # Splunk's smaller limit counts bytes of the event.
    assert texts_last(long.body).index(b',"prompt_text":') < 5_000 < long.body.index(b'"owasp"')
    assert texts_last(long.body) == texts_last(texts_last(long.body)), "a resend has the same bytes"


def test_short_events_and_other_kinds_of_events_go_as_they_are():
    short = EncodedEvent(example_event().event_id, AT, encode(example_event()))
    assert len(short.body) < 4_096
    finding = encoded(Finding(event_id="f" * 32, timestamp=AT, tenant_id="acme", rule_id="r", severity="low",
                              summary="s" * 5_000))  # fmt: skip
    for event, changes in ((short, {}), (finding, {"stream": "finding"})):
        sender = Sender(OK)
        send(make(sender, **changes), [event])
        assert event.body in sender.sent[0][2]


@pytest.mark.parametrize("one", ["prompt_text", "response_text"])
def test_one_text_alone_goes_last_too(one):
    long = _long_event(**{one: ""})
    other = ({"prompt_text", "response_text"} - {one}).pop()
    assert list(json.loads(texts_last(long.body)))[-1] == other
    assert json.loads(texts_last(long.body)) == json.loads(long.body)
    assert (
        texts_last(_long_event(prompt_text="", response_text="").body)
        == _long_event(prompt_text="", response_text="").body
    )


@pytest.mark.parametrize(
    "body",
    [
        b'{"event_id":"e","a":{"b":1,"prompt_text":"x"},"prompt_text":"x","c":1}',
        b'{"event_id":"e","prompt_text":"x","prompt_text":"y","c":1}',
        b'{"event_id":"e", "prompt_text": "x","c":1}',
        b'{"prompt_text":"x","a":{"event_id":"e","prompt_text":"x"},"c":1}',
        b'{"event_id":"e","prompt_text":"x","c":1} ',
        b"{}",
    ],
)
def test_what_is_no_canonical_event_is_left_alone(body):
    assert texts_last(body) == body


def test_what_is_no_object_never_becomes_an_envelope():
    bodies = [b"", b"{", b"[]", b'"x"', b'{"a":1}}', b'{"a":1},"fields":{"event_id":"forged"}}', b'{"a":"\xff"}', b"{}"]
    sender = Sender(OK)
    events = [EncodedEvent(f"{number:032x}", "2026-11-23T09:00:00.000Z", body) for number, body in enumerate(bodies)]
    assert [status for status, _ in send(make(sender), events)] == ["rejected"] * 7 + ["delivered"]
    # The same of bodies that are long enough to have their texts moved.
    long = [body[:-1] + b" " * 5_000 + body[-1:] for body in bodies]
    events = [EncodedEvent(f"{number:032x}", "2026-11-23T09:00:00.000Z", body) for number, body in enumerate(long)]
    assert [status for status, _ in send(make(Sender(OK)), events)] == ["rejected"] * 7 + ["delivered"]
    odd = [EncodedEvent('x","event":{', "2026-11-23T09:00:00.000Z", b"{}")]
    send(make(sender), odd)
    assert sender.ids(1) == ['x","event":{']


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("bad", [0, 1, 5, 8, 9])
def test_resume_behind_the_refused_event(base, bad):
    """The refused event alone is dead-lettered; at most its neighbour is sent a second time, whatever the base."""
    events = make_events(10)
    peer = HecPeer(base=base)
    try:
        from aitrail.testing.peer import Behaviour

        peer.script(Behaviour("refuse_items", times=0, ids=(events[bad].event_id,), code=13))
        settings = SplunkSettings(urls=(peer.address["url"],), token="env:HEC")
        token = Token42(Path(peer.address["token_file"]).read_text())
        destination = SplunkDestination(settings, token)
        verdicts = send(destination, events)
        destination.close()
        assert [status for status, _ in verdicts] == ["rejected" if at == bad else "delivered" for at in range(10)]
        assert verdicts[bad] == ("rejected", "hec_13")
        arrived = peer.received()
        assert set(arrived) == {event.event_id for at, event in enumerate(events) if at != bad}
        assert len(arrived) - len(set(arrived)) <= 1 - base
        assert peer.traffic.requests <= 4
    finally:
        peer.close()


@pytest.mark.parametrize("number", [None, -1, 11, 10**30, "3", 2.5])
def test_a_senseless_number_means_halving(number):
    events = make_events(8)
    refusal = say(400, 6) if number is None else say(400, 6, **{"invalid-event-number": number})
    sender = Sender(refusal, OK, refusal, OK, refusal, refusal, OK)
    if number in ("3", 2.5):  # a body that does not fit is no HEC answer at all
        with pytest.raises(ConfigError):
            send(make(sender), events)
        return
    statuses = [status for status, _ in send(make(sender), events)]
    assert statuses.count("rejected") == 1
    assert statuses.count("delivered") == 7


def test_busy_with_a_number_keeps_what_was_taken():
    events = make_events(10)
    sender = Sender(say(503, 9, **{"invalid-event-number": 6}))
    verdicts = send(make(sender), events)
    assert [status for status, _ in verdicts] == ["delivered"] * 5 + ["retry"] * 5
    with pytest.raises(TransientError):
        send(make(Sender(say(503, 9, **{"invalid-event-number": 1}))), events)


def test_with_acknowledgement_a_refused_request_proves_nothing():
    events = make_events(10)
    taken = [say(200, 0, ackId=number) for number in range(5)]
    sender = Sender(say(400, 6, **{"invalid-event-number": 5}), *taken)
    statuses = [status for status, _ in send(make(sender, ack=True), events)]
    assert statuses == ["pending"] * 10
    assert sender.ids(1) == [event.event_id for event in events[:4]]
    busy = Sender(say(503, 9, **{"invalid-event-number": 5}))
    with pytest.raises(TransientError):
        send(make(busy, ack=True), events)


def test_too_large_is_halved_and_a_single_one_cut():
    events = make_events(4)
    too_large = Response(413, {}, b"<html></html>")
    sender = Sender(too_large, too_large, OK)
    assert send(make(sender), events) == [("delivered", "")] * 4
    assert [len(sender.ids(number)) for number in range(len(sender.sent))] == [4, 2, 1, 1, 2]

    large = oversize_event(0, 100_000)
    sender = Sender(too_large, too_large, OK)
    assert send(make(sender), [large]) == [("delivered", "")]
    sizes = [len(body) for _, _, body, _ in sender.sent]
    assert sizes[1] <= sizes[0] // 2 + 400
    assert sizes[2] <= sizes[1] // 2 + 400
    cut = json.loads(sender.sent[2][2])["event"]
    assert cut["truncated"] is True
    assert cut["prompt_hash"] == decode(large.body).prompt_hash

    assert send(make(Sender(too_large)), [large]) == [("rejected", "event_too_large")]
    assert send(make(Sender(too_large), oversize="reject"), [large]) == [("rejected", "event_too_large")]


def test_limits_are_kept_after_encoding():
    sender = Sender(OK)
    destination = make(sender, batch_bytes=20_000, batch_events=30)
    assert send(destination, make_events(200)) == [("delivered", "")] * 200
    assert all(len(body) <= 20_000 for _, _, body, _ in sender.sent)
    assert all(len(sender.ids(number)) <= 30 for number in range(len(sender.sent)))
    assert [one for number in range(len(sender.sent)) for one in sender.ids(number)] == [
        event.event_id for event in make_events(200)
    ]


def test_a_failure_in_the_middle_keeps_what_was_judged():
    sender = Sender(OK, say(503, 9))
    destination = make(sender, batch_events=3)
    verdicts = send(destination, make_events(9))
    assert [status for status, _ in verdicts] == ["delivered"] * 3 + ["retry"] * 6


def test_refused_token_is_read_anew_once():
    secrets = Token42("old", "new")
    sender = Sender(say(403, 4), OK)
    assert send(make(sender, secrets), make_events(1)) == [("delivered", "")]
    assert [headers["Authorization"] for *_, headers in sender.sent] == ["Splunk old", "Splunk new"]
    secrets = Token42("same")
    sender = Sender(say(403, 4))
    with pytest.raises(AuthError):
        send(make(sender, secrets), make_events(1))
    assert len(sender.sent) == 1
    assert secrets.asked == 2


def test_failover_and_return():
    class Two(Sender):
        def request(self, method, url, **more):
            self.sent.append((method, url, b"", {}))
            if "one" in url and self.answers[0] is not OK:
                raise TransientError("one is down")
            return OK

    sender = Two("down")
    destination = make(sender, urls=("https://one.example.com:8088", "https://two.example.com:8088"))
    for number in range(6):
        assert send(destination, make_events(1, first=number)) == [("delivered", "")]
    asked = [url for _, url, _, _ in sender.sent]
    assert sum("one" in url for url in asked) == 1, "an endpoint that failed rests"
    assert sum("two" in url for url in asked) == 6


def test_when_all_endpoints_rest_it_says_when_to_come_back():
    sender = Sender(TransientError("down", retry_after=7.0))
    destination = make(sender, urls=("https://one.example.com:8088", "https://two.example.com:8088"))
    with pytest.raises(TransientError):
        send(destination, make_events(1))
    with pytest.raises(TransientError) as caught:
        send(destination, make_events(1))
    assert len(sender.sent) == 2
    assert caught.value.retry_after == pytest.approx(7.0, abs=0.5)


def test_retry_after_reaches_the_courier():
    busy = Response(503, {"retry-after": "17"}, b'{"code":9}')
    with pytest.raises(TransientError) as caught:
        send(make(Sender(busy)), make_events(1))
    assert caught.value.retry_after == 17.0


def test_accepted_without_an_ack_id_is_not_delivered():
    with pytest.raises(ConfigError, match="ackId"):
        send(make(Sender(OK), ack=True), make_events(1))


def test_acknowledged_only_by_a_true():
    asked = say(200, 0, ackId=7)
    sender = Sender(asked, say(200, None, acks={"7": False}), Response(500, {}, b""), say(200, None, acks={"8": True}))
    destination = make(sender, ack=True, ack_poll_seconds=0.0)
    token = destination.send(make_events(2), time.monotonic() + 30).verdicts[0].token
    for _ in range(3):
        assert destination.confirm(token).status == "pending"
    sender.answers = [Response(200, {}, b"{"), Response(404, {}, b""), say(200, None, acks={"7": True}), OK]
    assert destination.confirm(token).status == "pending"
    assert destination.confirm(token).status == "pending"
    assert destination.confirm(token).status == "delivered"
    polls = len(sender.sent)
    # The server deletes an ackId that was read: the second event of that request is not asked for again.
    assert destination.confirm(token).status == "delivered"
    assert len(sender.sent) == polls
    assert sender.sent[1][1].startswith("https://hec.example.com:8088/services/collector/ack?channel=")


def test_unacknowledged_is_sent_again_on_another_channel():
    sender = Sender(say(200, 0, ackId=1), say(200, None, acks={"1": False}))
    destination = make(sender, ack=True, ack_poll_seconds=0.0, ack_timeout_seconds=0.05)
    token = destination.send(make_events(1), time.monotonic() + 30).verdicts[0].token
    time.sleep(0.2)
    verdict = destination.confirm(token)
    assert (verdict.status, verdict.code) == ("retry", "ack_timeout")
    sender.answers = [say(200, 0, ackId=1)]
    destination.send(make_events(1), time.monotonic() + 30)
    channels = [headers["X-Splunk-Request-Channel"] for _, _, _, headers in (sender.sent[0], sender.sent[-1])]
    assert channels[0] != channels[1]
    sender.answers = [say(200, 17), say(400, 5)]
    assert any("acknowledgement" in one for one in destination.check())


@pytest.mark.parametrize("token", ["", "x", "a.b.c.d", "a.0e877f2f-844e-4021-a0f6-045608811e54.x.1", "1.2.3"])
def test_foreign_tokens_are_sent_again(token):
    assert make(Sender(OK), ack=True).confirm(token).status == "retry"


def test_a_restarted_server_counts_from_the_start():
    """An ackId that comes again on a channel must not confirm the request that had it before the restart."""
    acks = Acks(lambda endpoint, channel, ids: dict.fromkeys(ids, True), time.monotonic, 0.0)
    channel = acks.channel("one")
    old, new = Token("one", channel, 0, 100.0), Token("one", channel, 0, 105.0)
    acks.sent(old)
    acks.sent(new)
    assert not acks.is_acked(old)
    assert acks.is_acked(new)
    assert not acks.is_acked(old)
    assert acks.channel("one") != channel
    assert read_token(new.text()) == new


def test_check_names_what_is_wrong_and_where_to_fix_it():
    healthy = say(200, 17)
    assert make(Sender(healthy, say(400, 5))).check() == []
    for answers, words in (
        ((say(503, 18), say(400, 5)), ("queues are full",)),
        ((healthy, say(403, 4)), ("invalid token", "HTTP Event Collector")),
        ((healthy, say(403, 1)), ("disabled", "enable the token")),
        ((healthy, say(400, 10)), ("ack = true",)),
        ((Response(404, {}, b""), Response(404, {}, b"")), ("enable HEC",)),
        ((TransientError("https://hec.example.com:8088: no answer in time", hint="check firewall"),), ("firewall",)),
    ):
        said = " ".join(make(Sender(*answers)).check())
        assert all(word in said for word in words), said
        assert "secret-token-42" not in said
    skewed = Response(200, {"date": "Mon, 23 Nov 2020 09:00:00 GMT"}, b'{"code":17}')
    assert "NTP" in " ".join(make(Sender(skewed, say(400, 5))).check())


def test_settings_that_cannot_work_are_refused_at_once():
    for urls in ((), ("hec.example.com",), ("ftp://hec.example.com",), ("https://user:pw@hec.example.com",)):
        with pytest.raises(ConfigError) as caught:
            make(Sender(OK), urls=urls)
        assert "pw" not in str(caught.value)


def test_packs_keep_both_limits():
    assert list(pack([], 10, 10)) == []
    assert list(pack([4, 4, 4, 40, 1, 1, 1], 2, 10)) == [(0, 2), (2, 3), (3, 4), (4, 6), (6, 7)]


def test_fit_cuts_texts_and_keeps_the_proof():
    large = oversize_event(3, 50_000)
    for limit in (40_000, 9_000, 1_200):
        cut = fit(large, limit)
        assert cut is not None
        assert len(cut.body) <= limit
        event = decode(cut.body)
        assert event.truncated is True
        assert event.prompt_hash == decode(large.body).prompt_hash
        assert decode(large.body).prompt_text.startswith(event.prompt_text)
        assert fit(large, limit) == cut, "a resend has the same bytes"
    assert fit(large, 100) is None
    assert fit(large, 40_000, "reject") is None
    assert fit(large, 60_000) is large
    assert fit(EncodedEvent("x", "", b"no json" * 100), 50) is None


def test_the_documentation_has_every_row():
    page = (Path(__file__).parents[2] / "docs" / "destinations" / "splunk.md").read_text()
    documented = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0][:1].isdigit():
            for code in cells[0].split(","):
                documented[int(code)] = {int(status) for status in cells[1].split(",")}
    assert documented.keys() == CODES.keys()
    for code, rule in CODES.items():
        assert rule.http in documented[code], code
