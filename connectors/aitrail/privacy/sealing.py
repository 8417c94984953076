"""Content mode ``sealed``: texts under a key per subject; deleting that key erases them everywhere at once.

A subject is (tenant, user id). Its random AES-256 key is kept wrapped (AES-256-GCM) under the tenant's key in
``<store>/keys/subjects.db``. A sealed text is ``sealed:v1:<subject id>:<base64(nonce + ciphertext)>``; the event_id is
bound as associated data, so a text cannot be moved to another event. Needs the extra ``seal``.
"""

import base64
import hashlib
import os
import sqlite3
from pathlib import Path
from typing import Any

from aitrail.errors import ConfigError
from aitrail.privacy.keys import KeyRing

PREFIX = "sealed:v1:"


def _aesgcm(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  (an extra)
    except ImportError:
        raise ConfigError("content mode 'sealed' needs a cipher", hint="pip install 'aitrail[seal]'") from None
    return AESGCM(key)


class Sealer:
    """Seals and opens texts; ``erase`` makes every sealed text of a subject unreadable for good."""

    def __init__(self, directory: Path, ring: KeyRing) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ring = ring
        path = directory / "subjects.db"
        self._db = sqlite3.connect(path, isolation_level=None)
        path.chmod(0o600)
        # secure_delete: an erased key must not stay in free pages of the file.
        self._db.executescript(
            "PRAGMA secure_delete=ON; PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL;"
            "CREATE TABLE IF NOT EXISTS subjects("
            " id TEXT PRIMARY KEY, tenant TEXT NOT NULL, key_id TEXT NOT NULL, wrapped BLOB NOT NULL)"
        )
        self._cache: dict[str, bytes] = {}

    def seal(self, tenant: str, user: str, event_id: str, text: str) -> str:
        """Return ``text`` sealed for the subject and bound to the event."""
        subject = _subject_id(self._ring.active(tenant)[1], tenant, user)
        nonce = os.urandom(12)
        body = _aesgcm(self._key(tenant, subject)).encrypt(
            nonce, text.encode("utf-8", "surrogatepass"), event_id.encode()
        )
        return f"{PREFIX}{subject}:{base64.b64encode(nonce + body).decode()}"

    def open(self, tenant: str, event_id: str, sealed: str) -> str | None:
        """Return the text, or None when the subject's key was erased or the value is not authentic."""
        subject, _, encoded = sealed.removeprefix(PREFIX).partition(":")
        key = self._load(tenant, subject)
        if key is None:
            return None
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  (an extra)

        try:
            data = base64.b64decode(encoded, validate=True)
            opened: bytes = _aesgcm(key).decrypt(data[:12], data[12:], event_id.encode())
        except (InvalidTag, ValueError):
            return None
        return opened.decode("utf-8", "surrogatepass")

    def erase(self, tenant: str, user: str) -> bool:
        """Delete the subject's keys, also those made before a rotation; True when there was one."""
        erased = False
        for key in self._ring.all(tenant):
            subject = _subject_id(key, tenant, user)
            self._cache.pop(subject, None)
            erased |= self._db.execute("DELETE FROM subjects WHERE id = ?", (subject,)).rowcount > 0
        return erased

    def close(self) -> None:
        """Close the key file."""
        self._db.close()

    def _key(self, tenant: str, subject: str) -> bytes:
        found = self._cache.get(subject) or self._load(tenant, subject)
        if found is None:
            key_id, wrapping = self._ring.active(tenant)
            found = os.urandom(32)
            nonce = os.urandom(12)
            wrapped = nonce + _aesgcm(wrapping).encrypt(nonce, found, subject.encode())
            self._db.execute("INSERT INTO subjects VALUES (?, ?, ?, ?)", (subject, tenant, key_id, wrapped))
        self._cache[subject] = found
        return found

    def _load(self, tenant: str, subject: str) -> bytes | None:
        row = self._db.execute("SELECT key_id, wrapped FROM subjects WHERE id = ?", (subject,)).fetchone()
        if row is None:
            return None
        key_id, wrapped = row
        wrapping = self._ring.key(tenant, key_id)
        if wrapping is None:
            return None
        key: bytes = _aesgcm(wrapping).decrypt(wrapped[:12], wrapped[12:], subject.encode())
        return key


def _subject_id(key: bytes, tenant: str, user: str) -> str:
    return hashlib.blake2b(f"{tenant}\x00{user}".encode(), key=key, digest_size=8).hexdigest()
