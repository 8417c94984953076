"""Why a record that fits no record type does not: broken bytes give the decoder's reason, the rest is unknown."""

import msgspec

from aitrail.normalize.common import decode
from aitrail.normalize.outcome import Rejected

_any = msgspec.json.Decoder()


def why_unknown(raw: bytes) -> Rejected:
    """Say why no record type fits ``raw``; total."""
    value = decode(_any, raw, "")
    if isinstance(value, Rejected):
        return value
    return Rejected("type_unknown") if isinstance(value, dict) else Rejected("json_not_object")
