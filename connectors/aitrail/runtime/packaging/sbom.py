"""What a package holds, as a CycloneDX 1.6 document (ECMA-424): every distribution with its version, licence and hash.

It says nothing of when or where it was made: the same package gives the same document.
"""

import hashlib
import re
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from aitrail import __version__
from aitrail.runtime.packaging.targets import Choice
from aitrail.runtime.packaging.wheels import Wheel

_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # RFC 4122, names that are URLs
_SPDX = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")
# Licences that metadata writes in words; an expression must be SPDX's.
_WORDS = {"Apache Software License": "Apache-2.0", "MIT License": "MIT", "BSD License": "BSD-3-Clause", "MIT": "MIT"}


def document(choice: Choice, wheels: Sequence[Wheel], own_digest: str, extra: Sequence[tuple[str, str]]) -> bytes:
    """The document as JSON.

    Args:
        choice: what was packaged.
        wheels: the distributions in it.
        own_digest: SHA-256 over aitrail's own files.
        extra: properties (name, value), e.g. how the bytecode was made.
    """
    root = f"pkg:pypi/aitrail@{__version__}"
    properties = [
        ("aitrail:target", choice.target), ("aitrail:arch", choice.arch), ("aitrail:python", choice.python),
        ("aitrail:sources", ",".join(choice.sources)), ("aitrail:destinations", ",".join(choice.destinations)), *extra,
    ]  # fmt: skip
    main = {
        "type": "application", "bom-ref": root, "name": "aitrail", "version": __version__, "purl": root,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "hashes": [{"alg": "SHA-256", "content": own_digest}],
        "properties": [{"name": name, "value": value} for name, value in properties],
    }  # fmt: skip
    body: dict[str, Any] = {
        "metadata": {"component": main},
        "components": [_component(one) for one in wheels],
        "dependencies": [{"ref": root, "dependsOn": [_purl(one) for one in wheels]}],
    }
    # The serial number names this content: a UUID made of it.
    digest = hashlib.sha256(msgspec.json.encode(body)).hexdigest()
    head = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}", "version": 1,
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode({**head, **body}), indent=2) + b"\n"


def _purl(wheel: Wheel) -> str:
    return f"pkg:pypi/{wheel.name}@{wheel.version}"


def _component(wheel: Wheel) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library", "bom-ref": _purl(wheel), "name": wheel.name, "version": wheel.version, "purl": _purl(wheel),
        "scope": "required", "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        "properties": [{"name": "aitrail:file", "value": wheel.path.name}],
    }  # fmt: skip
    if wheel.summary:
        found["description"] = wheel.summary
    licence = _WORDS.get(wheel.licence, wheel.licence)
    if licence:
        spdx = _SPDX.fullmatch(licence) is not None
        found["licenses"] = [{"expression": licence} if spdx else {"license": {"name": licence}}]
    return found
