"""Content modes: what is kept, what is hidden, and that hashes are keyed."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitrail.errors import ConfigError
from aitrail.event import AccessEvent
from aitrail.privacy.keys import KeyRing
from aitrail.privacy.masking import mask
from aitrail.privacy.sealing import Sealer
from aitrail.privacy.treat import MAX_TEXT, Piece, Privacy
from aitrail.secrets import Secrets

CARD = "4111 1111 1111 1111"


def make_event(tenant: str = "acme") -> AccessEvent:
    return AccessEvent(
        event_id="ab" * 16, timestamp="2026-11-23T09:00:00.000Z", tenant_id=tenant, source="litellm", user_id="ines"
    )


def pieces() -> list[Piece]:
    question = f"Is {CARD} blocked?"
    return [
        Piece("prompt", "system", "You are the bank's bot."),
        Piece("prompt", "user", "earlier question"),
        Piece("prompt", "assistant", "earlier answer"),
        Piece("prompt", "user", question, [(3, 3 + len(CARD), "card_number")]),
        Piece("response", "assistant", "No."),
    ]


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "keys", {}, Secrets())


def test_none_keeps_lengths_only(ring: KeyRing) -> None:
    event = make_event()
    Privacy(ring).treat(event, pieces(), "none")
    assert (event.prompt_text, event.response_text, event.prompt_hash, event.response_hash, event.system_hash) == (
        "",
    ) * 5
    assert event.prompt_chars == len(f"Is {CARD} blocked?")
    assert event.response_chars == 3


def test_hash_keeps_keyed_hashes(ring: KeyRing) -> None:
    event = make_event()
    Privacy(ring).treat(event, pieces(), "hash")
    assert event.prompt_text == event.response_text == ""
    assert event.prompt_hash.startswith("hmac-sha256:k1:")
    assert hashlib.sha256(f"Is {CARD} blocked?".encode()).hexdigest() not in event.prompt_hash
    assert ring.matches("acme", event.prompt_hash, f"Is {CARD} blocked?")
    assert not ring.matches("acme", event.prompt_hash, "something else")
    assert event.system_hash.startswith("hmac-sha256:k1:")


def test_redacted_masks_and_keeps_only_this_turn(ring: KeyRing) -> None:
    event = make_event()
    stored = Privacy(ring).treat(event, pieces(), "redacted")
    assert event.prompt_text == "Is [card_number] blocked?"
    assert "bank's bot" not in event.prompt_text
    assert event.response_text == "No."
    place = stored.place(3, 3 + len(CARD) + 1, 3 + len(CARD) + 8)
    assert place is not None
    assert event.prompt_text[place[0] : place[1]] == "blocked"


def test_full_keeps_the_text(ring: KeyRing) -> None:
    event = make_event()
    Privacy(ring).treat(event, pieces(), "full")
    assert event.prompt_text == f"Is {CARD} blocked?"


def test_two_tenants_have_different_hashes(ring: KeyRing) -> None:
    one, two = make_event("acme"), make_event("globex")
    privacy = Privacy(ring)
    privacy.treat(one, pieces(), "hash")
    privacy.treat(two, pieces(), "hash")
    assert one.prompt_hash.rpartition(":")[2] != two.prompt_hash.rpartition(":")[2]


def test_hash_is_over_the_whole_text_even_when_it_is_cut(ring: KeyRing) -> None:
    event = make_event()
    text = "x" * (MAX_TEXT + 10)
    Privacy(ring).treat(event, [Piece("prompt", "user", text)], "redacted")
    assert event.truncated
    assert len(event.prompt_text) == MAX_TEXT
    assert ring.matches("acme", event.prompt_hash, text)


def test_rotation_keeps_old_hashes_checkable(tmp_path: Path, ring: KeyRing) -> None:
    event = make_event()
    Privacy(ring).treat(event, pieces(), "hash")
    assert ring.rotate("acme") == "k2"
    again = KeyRing(tmp_path / "keys", {}, Secrets())
    assert again.active("acme")[0] == "k2"
    assert again.matches("acme", event.prompt_hash, f"Is {CARD} blocked?")


def test_key_file_is_private(tmp_path: Path, ring: KeyRing) -> None:
    ring.active("acme")
    assert (tmp_path / "keys" / "tenants.json").stat().st_mode & 0o077 == 0
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0


def test_damaged_key_file_is_not_replaced(tmp_path: Path, ring: KeyRing) -> None:
    ring.active("acme")
    path = tmp_path / "keys" / "tenants.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        KeyRing(tmp_path / "keys", {}, Secrets()).active("acme")
    assert path.read_text() == "{"


def test_managed_key_comes_from_its_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AITRAIL_TEST_KEY", "0123456789abcdef0123456789abcdef")
    ring = KeyRing(tmp_path / "keys", {"acme": "env:AITRAIL_TEST_KEY"}, Secrets())
    key_id, key = ring.active("acme")
    assert key_id.startswith("m")
    assert len(key) == 32
    assert not (tmp_path / "keys" / "tenants.json").exists()
    monkeypatch.setenv("AITRAIL_TEST_KEY", "short")
    with pytest.raises(ConfigError, match="shorter than 16 bytes") as caught:
        KeyRing(tmp_path / "keys", {"acme": "env:AITRAIL_TEST_KEY"}, Secrets()).active("acme")
    assert "short'" not in str(caught.value)


def test_sealed_opens_until_erased(tmp_path: Path, ring: KeyRing) -> None:
    sealer = Sealer(tmp_path / "keys", ring)
    event = make_event()
    Privacy(ring, sealer).treat(event, pieces(), "sealed")
    assert event.prompt_text.startswith("sealed:v1:")
    assert CARD not in event.prompt_text
    assert sealer.open("acme", event.event_id, event.prompt_text) == f"Is {CARD} blocked?"
    assert sealer.open("acme", "cd" * 16, event.prompt_text) is None, (
        "a sealed text moved to another event must not open"
    )
    ring.rotate("acme")
    assert sealer.open("acme", event.event_id, event.prompt_text) == f"Is {CARD} blocked?"
    assert sealer.erase("acme", "ines")
    assert sealer.open("acme", event.event_id, event.prompt_text) is None
    assert not sealer.erase("acme", "ines")
    sealer.close()


@given(st.text(max_size=200), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=8))
def test_masking_hides_every_span_and_moves_every_other_offset(text: str, raw: list[tuple[int, int]]) -> None:
    spans = [(min(a, b, len(text)), min(max(a, b), len(text)), "secret") for a, b in raw]
    masked = mask(text, spans)
    hidden = {i for start, end, _ in spans for i in range(start, end)}
    for i, character in enumerate(text):
        if i not in hidden:
            assert masked.text[masked.move(i)] == character
    kept = "".join(c for i, c in enumerate(text) if i not in hidden)
    assert masked.text.replace("[secret]", "") == kept.replace("[secret]", "")
