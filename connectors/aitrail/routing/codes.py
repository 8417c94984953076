"""Why a destination (or the spool before it) refuses an event for good: one table of code, meaning and fix.

``aitrail deadletter`` and ``docs/reason-codes.md`` read it; a test finds every code that the code can give. What a
protocol's own table says is taken from there.
"""

from collections.abc import Mapping

from msgspec import Struct

from aitrail.destinations._elastic_codes import ITEM_ERRORS, ITEM_STATUSES
from aitrail.destinations._hec_codes import CODES


class Reason(Struct, frozen=True):
    """What a code means, and what to do about it."""

    meaning: str
    fix: str


_REPLAY = "then `aitrail deadletter replay`"
_DEFECT = "a defect of aitrail or of what wrote the event: report it with the code and the record type"
_MAPPING = f"run `aitrail elastic install`, look for templates of your own on the stream, {_REPLAY}"

_OWN: Mapping[str, Reason] = {
    "event_too_large": Reason(
        'larger than the destination takes, also with its texts cut (or `oversize = "reject"` is set)',
        f"raise event_bytes if the receiver takes more, leave fields out with exclude_fields, {_REPLAY}",
    ),
    "unencodable": Reason("the bytes are no AccessEvent, or one of another identity", _DEFECT),
    "not_json": Reason("the bytes are not one JSON object", _DEFECT),
    "newline_in_event": Reason("the bytes hold a line break, which ends an event on standard output", _DEFECT),
    "stream_unsupported": Reason(
        "this destination does not take this kind of events", f"add the kind to the destination's streams, {_REPLAY}"
    ),
    "body_invalid": Reason("the bytes do not fit the store's columns", _DEFECT),
    "body_too_deep": Reason("nested deeper than the parser's limit", _DEFECT),
    "number_out_of_range": Reason(
        "a number that no 64-bit column holds", "correct what writes the record; the event stays here as it is"
    ),
    "timestamp_invalid": Reason(
        "the event's time is none that a partition or column can be made of", "correct what writes the record"
    ),
    "timestamp_mismatch": Reason("the envelope and the event name different days", _DEFECT),
    "unstorable": Reason("the Parquet writer refuses the event", f"look for numbers outside 64 bits, {_REPLAY}"),
    "invalid_record": Reason(
        "the Kafka broker refuses the record (INVALID_RECORD)",
        f"look for an interceptor, schema validation or compaction without key on the topic, {_REPLAY}",
    ),
    "invalid_timestamp": Reason(
        "the Kafka broker refuses the record's time (INVALID_TIMESTAMP)",
        f"raise message.timestamp.difference.max.ms (or .before.max.ms) of the topic, {_REPLAY}",
    ),
    "azure_400": Reason(
        "Azure refuses this one record",
        f"compare the columns of the data collection rule with this version's, {_REPLAY}",
    ),
    "rejected": Reason("refused without a code", "look into the receiver's log"),
}
_HEC: Mapping[str, Reason] = {
    f"hec_{number}": Reason(f"Splunk: {rule.meaning}", rule.hint or f"look for a proxy in between, {_REPLAY}")
    for number, rule in CODES.items()
    if rule.action == "data"
}
_ES_MEANINGS: Mapping[str, Reason] = {
    "es_mapping": Reason("Elasticsearch: a value does not fit the stream's mapping", _MAPPING),
    "es_illegal_argument": Reason(
        "Elasticsearch: the document breaks a limit (field length, number of fields)", _MAPPING
    ),
    "es_ingest_pipeline": Reason(
        "Elasticsearch: an ingest pipeline failed on it", f"correct the pipeline of your own on the stream, {_REPLAY}"
    ),
    "es_400": Reason("Elasticsearch refuses this one document", _MAPPING),
    "es_4xx": Reason("Elasticsearch refuses this one document for a reason that is not listed", _MAPPING),
    "es_bad_request": Reason("Elasticsearch cannot read this one document", _DEFECT),
    "es_failure_store": Reason(
        "Elasticsearch put it into the stream's failure store, where no rule looks", f"see why there, {_REPLAY}"
    ),
}

DELIVERY_CODES: Mapping[str, Reason] = {**_OWN, **_HEC, **_ES_MEANINGS}
# What the tables of Elasticsearch can give; a test holds _ES_MEANINGS against it.
ELASTIC_CODES = frozenset(
    item.code for item in (*ITEM_ERRORS.values(), *ITEM_STATUSES.values()) if item.action == "rejected"
)
UNKNOWN = Reason("the destination refused the event for good", "look into the receiver's log")


def delivery_reason(code: str) -> Reason:
    """What a code of stage ``deliver`` means."""
    return DELIVERY_CODES.get(code, UNKNOWN)
