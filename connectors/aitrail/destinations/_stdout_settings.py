"""``[destinations.NAME]`` with ``type = "stdout"``: the settings of standard output as a destination."""

from typing import Annotated

from msgspec import Meta, Struct


class StdoutSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How events are written to standard output, one JSON object a line."""

    batch_events: Annotated[int, Meta(description="Events that are written and flushed together.", ge=1)] = 1_000
