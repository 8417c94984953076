"""Where each stream of records lies and how its files are framed, as the real exporters do it."""

import zlib
from collections.abc import Callable, Sequence

from msgspec import Raw, Struct, json

from aitrail.demo import wire_apim, wire_azure, wire_otel
from aitrail.demo.org import ACCOUNT, APPS, digest
from aitrail.demo.times import hour_parts

Stream = tuple[str, ...]
SPANS_PER_LINE = 16  # one export request of an OTLP file exporter


class Place(Struct, frozen=True, gc=False):
    """A file: its path below ``logs/``, and whether it is compressed."""

    path: str
    compressed: bool = False


def gzip(data: bytes, level: int) -> bytes:
    """``data`` as one gzip member with time stamp 0, so that equal input gives an equal file."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def _cloudtrail(stream: Stream, hour: int) -> Place:
    region = stream[1]
    year, month, day, clock = hour_parts(hour)
    unique = digest(f"{stream}/{hour}", 16).upper()
    name = f"{ACCOUNT}_CloudTrail_{region}_{year}{month}{day}T{clock}55Z_{unique}.json.gz"
    return Place(f"aws-cloudtrail/AWSLogs/{ACCOUNT}/CloudTrail/{region}/{year}/{month}/{day}/{name}", compressed=True)


def _bedrock(stream: Stream, hour: int) -> Place:
    region = stream[1]
    year, month, day, clock = hour_parts(hour)
    name = f"{year}{month}{day}T{clock}5959{int(digest(str(hour), 3), 16) % 1000:03d}Z_{digest(f'{stream}/{hour}', 16)}"
    base = f"aws-bedrock/AWSLogs/{ACCOUNT}/BedrockModelInvocationLogs/{region}/{year}/{month}/{day}/{clock}"
    return Place(f"{base}/{name}.json.gz", compressed=True)


def _sagemaker(stream: Stream, hour: int) -> Place:
    year, month, day, clock = hour_parts(hour)
    unique = digest(f"{stream}/{hour}", 32)
    name = f"00-03-{int(unique[:3], 16) % 1000:03d}-{unique[:8]}-{unique[8:12]}-4{unique[13:16]}-a{unique[17:20]}"
    return Place(f"aws-sagemaker-capture/{stream[1]}/AllTraffic/{year}/{month}/{day}/{clock}/{name}.jsonl")


def _hour_blob(category: str, resource_id: str, hour: int) -> Place:
    year, month, day, clock = hour_parts(hour)
    when = f"y={year}/m={month}/d={day}/h={clock}/m=00"
    return Place(f"azure/insights-logs-{category}/resourceId={resource_id}/{when}/PT1H.json")


def _azure(stream: Stream, hour: int) -> Place:
    return _hour_blob(stream[1], wire_azure.resource_id(stream[2]), hour)


def _apim(stream: Stream, hour: int) -> Place:
    return _hour_blob(stream[1], wire_apim.RESOURCE_ID, hour)


def _litellm(stream: Stream, hour: int) -> Place:
    year, month, day, clock = hour_parts(hour)
    if stream[1] == "calls":  # s3_v2 without batching: one object for each call
        return Place(f"litellm/calls/{year}-{month}-{day}/time-{clock}-{stream[2]}.json")
    return Place(f"litellm/{stream[1]}/{year}-{month}-{day}/{clock}-59-58_batch.jsonl")


def _spend(_: Stream, hour: int) -> Place:
    year, month, day, _hour = hour_parts(hour)
    return Place(f"litellm-spend/LiteLLM_SpendLogs_{year}-{month}-{day}.jsonl")


def _otel(stream: Stream, hour: int) -> Place:
    year, month, day, clock = hour_parts(hour)
    return Place(f"otel/{stream[2]}/{stream[1]}-{year}-{month}-{day}T{clock}.jsonl")


def _lines(_: Stream, records: Sequence[bytes]) -> bytes:
    return b"\n".join(records) + b"\n"


def _document(_: Stream, records: Sequence[bytes]) -> bytes:
    return b'{"Records":[' + b",".join(records) + b"]}"


_KEYS = {"traces": ("resourceSpans", "scopeSpans", "spans"), "logs": ("resourceLogs", "scopeLogs", "logRecords")}


def _otlp(stream: Stream, records: Sequence[bytes]) -> bytes:
    outer, inner, items = _KEYS[stream[1]]
    name, version, url = wire_otel.SCOPES[stream[3]]
    lines: list[bytes] = []
    for at in range(0, len(records), SPANS_PER_LINE):
        scope = {
            "scope": {"name": name, "version": version},
            items: [Raw(record) for record in records[at : at + SPANS_PER_LINE]],
            **({"schemaUrl": url} if url else {}),
        }
        line = {outer: [{"resource": wire_otel.resource(APPS[stream[2]]), inner: [scope]}]}
        lines.append(json.encode(line))
    return b"\n".join(lines) + b"\n"


class Layout(Struct, frozen=True):
    """How one kind of stream is stored; ``hours`` is how many hours one file spans."""

    place: Callable[[Stream, int], Place]
    frame: Callable[[Stream, Sequence[bytes]], bytes] = _lines
    hours: int = 1


LAYOUTS: dict[str, Layout] = {
    "cloudtrail": Layout(_cloudtrail, _document),
    "bedrock": Layout(_bedrock),
    "sagemaker": Layout(_sagemaker),
    "azure": Layout(_azure),
    "apim": Layout(_apim),
    "litellm": Layout(_litellm),
    "litellm_spend": Layout(_spend, hours=24),
    "otel": Layout(_otel, _otlp),
}


def file_key(stream: Stream, t: float) -> tuple[Stream, int]:
    """Which file a record of ``stream`` at ``t`` goes into. Only single calls have a file for each id."""
    hours = LAYOUTS[stream[0]].hours
    if stream[0] == "litellm" and stream[1] != "calls":
        stream = stream[:2]
    hour = int(t // 3600)
    return stream, hour - hour % hours
