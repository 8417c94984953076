"""Tenant keys: what turns a prompt into a keyed hash that nobody can look up in a dictionary.

A plain SHA-256 of a prompt is no protection: a million candidate prompts are tried in under a second. HMAC-SHA-256 with
a key per tenant is, and the key's id in the value (``hmac-sha256:<key id>:<hex>``) keeps old values checkable after a
rotation. Keys come from the configuration (a secret reference) or are made once in ``<store>/keys/tenants.json``.
"""

import hashlib
import hmac
import os
import secrets as token
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import msgspec
from filelock import FileLock

from aitrail.errors import ConfigError
from aitrail.ports import SecretResolver

ALGORITHM = "hmac-sha256"


class TenantKeys(msgspec.Struct):
    """The keys of one tenant: the active id, and every key by its id (hex)."""

    active: str
    keys: dict[str, str]


class KeyRing:
    """Gives the active key of each tenant and keeps older ones for checking.

    Args:
        directory: ``<store>/keys``; made with mode 0700, files with 0600.
        references: tenant -> secret reference, for tenants whose key is managed elsewhere.
        resolver: resolves those references.
    """

    def __init__(self, directory: Path, references: Mapping[str, str], resolver: SecretResolver) -> None:
        self._path = directory / "tenants.json"
        self._references = references
        self._resolver = resolver
        self._cache: dict[str, tuple[str, bytes]] = {}

    def active(self, tenant: str) -> tuple[str, bytes]:
        """Return ``(key id, key)`` of ``tenant``; makes and stores one when the tenant has none."""
        found = self._cache.get(tenant)
        if found is None:
            found = self._managed(tenant) if tenant in self._references else self._local(tenant)
            self._cache[tenant] = found
        return found

    def all(self, tenant: str) -> list[bytes]:
        """Return every key of ``tenant`` that is known, the active one first."""
        active_id, active = self.active(tenant)
        entry = self._read().get(tenant)
        older = [bytes.fromhex(key) for name, key in entry.keys.items() if name != active_id] if entry else []
        return [active, *older]

    def rotate(self, tenant: str) -> str:
        """Make a new active key for ``tenant``; older hashes stay checkable. Returns the new key id."""
        if tenant in self._references:
            raise ConfigError(f"the key of tenant {tenant!r} is managed by its reference; rotate it there")
        self._cache.pop(tenant, None)
        return self._local(tenant, fresh=True)[0]

    def tenants(self) -> list[str]:
        """Names of the tenants whose keys are in the store."""
        return sorted(self._read())

    def matches(self, tenant: str, value: str, text: str) -> bool:
        """Whether ``value`` is the keyed hash of ``text`` under any key of ``tenant`` that is still known."""
        _, _, rest = value.partition(":")
        key_id, _, digest = rest.partition(":")
        key = self.key(tenant, key_id)
        return key is not None and hmac.compare_digest(_digest(key, text), digest)

    def _managed(self, tenant: str) -> tuple[str, bytes]:
        secret = self._resolver.resolve(self._references[tenant]).encode()
        if len(secret) < 16:
            raise ConfigError(f"the key of tenant {tenant!r} is shorter than 16 bytes", hint="openssl rand -hex 32")
        key = hashlib.blake2b(secret, digest_size=32, person=b"aitrail-hashkey").digest()
        # The id names the key without telling anything about it: a short hash under another domain.
        return "m" + hashlib.blake2b(secret, digest_size=4, person=b"aitrail-keyid").hexdigest(), key

    def _local(self, tenant: str, *, fresh: bool = False) -> tuple[str, bytes]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(str(self._path) + ".lock"):
            everything = self._read()
            entry = everything.get(tenant)
            if entry is None or fresh:
                key_id = f"k{len(entry.keys) + 1}" if entry else "k1"
                older = entry.keys if entry else {}
                entry = TenantKeys(active=key_id, keys={**older, key_id: token.token_hex(32)})
                everything[tenant] = entry
                self._write(everything)
        return entry.active, bytes.fromhex(entry.keys[entry.active])

    def key(self, tenant: str, key_id: str) -> bytes | None:
        """Return the key ``key_id`` of ``tenant``, or None when it is not known (any more)."""
        active_id, active_key = self.active(tenant)
        if key_id == active_id:
            return active_key
        entry = self._read().get(tenant)
        return bytes.fromhex(entry.keys[key_id]) if entry and key_id in entry.keys else None

    def _read(self) -> dict[str, TenantKeys]:
        if not self._path.exists():
            return {}
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, TenantKeys])
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"the key file is damaged ({error})", where=str(self._path), hint="restore it from a backup"
            ) from None

    def _write(self, everything: dict[str, TenantKeys]) -> None:
        temporary = self._path.with_suffix(".tmp")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(everything)))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


_BLOCK = 64  # bytes of a SHA-256 block, to which HMAC (RFC 2104) pads the key
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


@lru_cache(maxsize=64)
def _states(key: bytes) -> "tuple[hashlib._Hash, hashlib._Hash]":
    """The two hash states that every HMAC under ``key`` starts from: setting them up costs more than a short text."""
    padded = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return hashlib.sha256(padded.translate(_INNER)), hashlib.sha256(padded.translate(_OUTER))


def _digest(key: bytes, text: str) -> str:
    """HMAC-SHA-256 as ``hmac.digest`` gives it, in hex."""
    inner, outer = _states(key)
    inner, outer = inner.copy(), outer.copy()
    inner.update(text.encode("utf-8", "surrogatepass"))
    outer.update(inner.digest())
    return outer.hexdigest()


def keyed_hash(key_id: str, key: bytes, text: str) -> str:
    """HMAC-SHA-256 of ``text`` as ``hmac-sha256:<key id>:<hex>``."""
    return f"{ALGORITHM}:{key_id}:{_digest(key, text)}"


@lru_cache(maxsize=4096)
def cached_keyed_hash(key_id: str, key: bytes, text: str) -> str:
    """The same, remembered: for texts that repeat on every call, such as system prompts."""
    return keyed_hash(key_id, key, text)
