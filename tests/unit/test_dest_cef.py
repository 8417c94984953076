"""CEF, LEEF and JSON text: every field has its key, and nothing of an event forges a field or a line."""

import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitrail.destinations._siem_fields import (
    CEF_KEYS,
    CEF_LABELS,
    EXABEAM_KEYS,
    FIELDS,
    LEEF_KEYS,
    SECURONIX_KEYS,
)
from aitrail.destinations.cef import RENDERERS, cef, severity
from aitrail.event import FIELD_NAMES, AccessEvent, decode, encode
from aitrail.ports import EncodedEvent
from aitrail.schema.catalog import example_event
from aitrail.schema.ocsf import epoch_ms
from aitrail.testing.events import HOSTILE_TEXTS, make_event
from aitrail.testing.syslog_peer import NotSyslog, parse_cef, parse_leef


def render(name, event):
    one = event if isinstance(event, EncodedEvent) else EncodedEvent(event.event_id, event.timestamp, encode(event))
    return RENDERERS[name](decode(one.body), one.body)


# Keys of the CEF dictionary that the table uses, by type (implementation standard, versions 25 and 26).
DICTIONARY = {
    *("externalId", "rt", "deviceFacility", "suser", "spriv", "src", "shost", "requestClientApplication"),
    *("sourceServiceName", "destinationServiceName", "act", "cat", "outcome", "reason", "filePath", "fileType", "msg"),
    *(f"cs{number}" for number in range(1, 7)),
    *(f"cn{number}" for number in range(1, 4)),
    *(f"cfp{number}" for number in range(1, 5)),
    *("flexString1", "flexString2"),
}


@pytest.mark.parametrize("keys", [CEF_KEYS, LEEF_KEYS, EXABEAM_KEYS, SECURONIX_KEYS])
def test_every_field_has_a_key_of_its_own(keys):
    assert set(keys) == set(FIELD_NAMES)
    assert len(set(keys.values())) == len(keys)
    assert all(key.replace("_", "").isalnum() for key in keys.values())


def test_the_table_names_only_fields_of_the_catalog_and_keys_of_the_standard():
    assert set(FIELDS) <= set(FIELD_NAMES)
    own = {key for key in CEF_KEYS.values() if not key.startswith("aitrail")}
    assert own == DICTIONARY
    custom = {key for key in own if key.startswith(("cs", "cn", "cfp", "flex"))}
    assert set(CEF_LABELS) == custom


def test_the_event_id_keeps_its_name_in_json():
    assert EXABEAM_KEYS["event_id"] == SECURONIX_KEYS["event_id"] == "event_id"


def test_cef_carries_every_field_that_is_set():
    event = example_event()
    header, found = parse_cef(render("cef", event).decode())
    assert header[:3] == ["CEF:0", "aitrail", "aitrail"]
    assert header[4:] == ["inference:success", "invokemodel", "8"]
    for name in FIELD_NAMES:
        value = getattr(event, name)
        text = found[CEF_KEYS[name]]
        if name == "timestamp":
            assert text == str(epoch_ms(value))
        elif isinstance(value, tuple):
            assert text == ",".join(value)
        elif isinstance(value, bool):
            assert text == str(value).lower()
        else:
            assert text == str(value)
    for key, label in CEF_LABELS.items():
        assert found[f"{key}Label"] == label


def test_an_ipv6_address_has_the_key_that_cef_0_has_for_it():
    found = parse_cef(render("cef", make_event(1, src_ip="2001:db8::7")).decode())[1]
    assert found["c6a2"] == "2001:db8::7"
    assert found["c6a2Label"] == "Source IPv6 Address"
    assert "src" not in found
    assert parse_cef(render("cef", make_event(1, src_ip="203.0.113.9")).decode())[1]["src"] == "203.0.113.9"


@pytest.mark.parametrize(("score", "level"), [(None, 0), (0, 0), (44, 4), (80, 8), (100, 10)])
def test_severity_is_a_tenth_of_the_risk(score, level):
    event = AccessEvent(event_id="a", timestamp="2026-11-23T09:00:00.000Z", tenant_id="acme", source="x")
    event.risk_score = score
    assert severity(event) == level
    assert parse_cef(render("cef", event).decode())[0][6] == str(level)


def test_escapes_are_those_of_the_standard():
    text = render("cef", make_event(1, action="a|b\\c", prompt_text="x=1|y\\z\nnext\rend")).decode()
    assert "|a\\|b\\\\c|" in text
    assert "msg=x\\=1|y\\\\z\\nnext\\rend" in text


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_hostile_text_stays_in_its_field(name):
    text = HOSTILE_TEXTS[name]
    event = make_event(7, prompt_text=text, action=text, user_id=text, model=text)
    line = render("cef", event).decode()
    header, found = parse_cef(line)
    plain = _without_controls(text)
    assert found["msg"] == plain
    assert found["suser"] == found["cs1"] == plain
    assert found["externalId"] == event.event_id
    assert len(line.splitlines()) == 1
    assert len(header) == 7
    wanted = {"externalId", "rt", "aitrailTenantId", "deviceFacility", "suser", "act", "cs1", "cs1Label", "msg"}
    assert set(found) == wanted | {"outcome", "cn1", "cn1Label"}


def _without_controls(text):
    """What CEF can hold of a text: tabs are spaces, other control characters but line breaks a mark."""
    controls = {*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029} - {9, 10, 13}
    return "".join("\ufffd" if ord(one) in controls else one for one in text).replace("\t", " ")


texts = st.text(alphabet=st.sampled_from([*string.printable, "\x00", "\x85", "\u2028", "é", "\U0001f9ff"]), max_size=60)


@given(prompt=texts, user=texts, action=texts, evidence=st.lists(texts, max_size=3))
def test_no_text_breaks_out(prompt, user, action, evidence):
    event = make_event(1, prompt_text=prompt, user_id=user, action=action, evidence=tuple(evidence))
    header, found = parse_cef(render("cef", event).decode())
    assert found["externalId"] == event.event_id
    assert found.get("msg", "") == _without_controls(prompt)
    assert found.get("suser", "") == _without_controls(user)
    assert len(header) == 7
    parsed, attributes = parse_leef(render("leef", event).decode())
    assert attributes["event_id"] == event.event_id
    assert attributes["devTime"] == event.timestamp
    assert len(parsed) == 6
    for name, keys in (("json", {}), ("json_exabeam", EXABEAM_KEYS), ("json_securonix", SECURONIX_KEYS)):
        line = render(name, event)
        assert len(line.decode().splitlines()) == 1
        back = {value: key for key, value in keys.items()}
        seen = {back.get(key, key): value for key, value in json.loads(line).items()}
        assert seen == json.loads(event.body)


def test_raw_line_breaks_between_tokens_are_written_anew():
    event = make_event(1, flags=("identity_missing", "late_part"))
    loose = EncodedEvent(
        event.event_id, event.timestamp, event.body.replace(b'"identity_missing",', b'"identity_missing",\r\n\t')
    )
    assert loose.body != event.body
    line = render("json", loose)
    assert json.loads(line) == json.loads(event.body)
    assert b"\r" not in line
    assert b"\n" not in line


def test_json_profiles_rename_and_lose_nothing():
    event = example_event()
    exabeam = json.loads(render("json_exabeam", event))
    assert exabeam["user"] == event.user_id
    assert exabeam["src_ip"] == event.src_ip
    assert exabeam["operation"] == event.action
    assert exabeam["result"] == event.outcome_status
    assert exabeam["time"] == event.timestamp
    securonix = json.loads(render("json_securonix", event))
    assert securonix["accountname"] == event.user_id
    assert securonix["sourceaddress"] == event.src_ip
    assert securonix["eventoutcome"] == event.outcome_status
    assert len(exabeam) == len(securonix) == len(FIELD_NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "CEF:0|a|b|1|x|y|3|msg=a=b",
        "CEF:0|a|b|1|x|y",
        "CEF:0|a|b|1|x|y|3|msg=a\nb",
        "CEF:0|a|b|1|x|y|3|msg=a msg=b",
        "CEF:0|a|b|1|x|y|3|msg=a\\q",
    ],
)
def test_the_reader_of_these_tests_is_strict(text):
    with pytest.raises(NotSyslog):
        parse_cef(text)


def test_surrogates_cannot_reach_the_wire():
    assert cef(example_event(), b"").decode()


def test_the_documented_table_is_the_one_in_use():
    page = (Path(__file__).parents[2] / "docs" / "destinations" / "syslog.md").read_text(encoding="utf-8")
    for name in FIELDS:
        label = CEF_LABELS.get(CEF_KEYS[name], "")
        row = f"| `{name}` | `{CEF_KEYS[name]}` | {label} | `{LEEF_KEYS[name]}` | "
        assert row + f"`{EXABEAM_KEYS[name]}` | `{SECURONIX_KEYS[name]}` |" in page
