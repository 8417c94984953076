"""Records for benchmarks: CloudTrail, Azure OpenAI and LiteLLM in equal parts, as many as wanted."""

from collections.abc import Callable, Iterator
from itertools import islice

from aitrail.demo import background, text, wire_azure, wire_bedrock, wire_cloudtrail, wire_litellm
from aitrail.demo.call import Call
from aitrail.demo.day import Traffic
from aitrail.demo.layout import gzip
from aitrail.demo.org import ACCOUNT, APPS, REGION, App
from aitrail.demo.times import day_start, hour_parts

# Records in one file: CloudTrail and Azure as busy accounts deliver them, LiteLLM as batches of a few MB.
PER_FILE = {"cloudtrail": 20_000, "azure_openai": 20_000, "litellm": 2_000}
_LEVEL = 1
_LITELLM = (APPS["retail-bot"], APPS["deal-desk"], APPS["code-helper"])


def _calls(traffic: Traffic, apps: tuple[App, ...], start: float, step: float) -> Iterator[Call]:
    """Calls without end, about ``step`` seconds apart."""
    rng = traffic.rng
    t = start
    while True:
        for call in traffic.session(rng.pick(apps), t, limit=6):
            call.start = t
            yield call
            t = round(t + step * (0.5 + rng.random()), 3)


def _cloudtrail(seed: int, day: str) -> Iterator[bytes]:
    traffic = Traffic(seed, day, "bench", "cloudtrail")
    for call in _calls(traffic, (APPS["notebooks"], APPS["fraud-scoring"]), day_start(day), 0.05):
        if call.app.gateway == "sagemaker":
            yield wire_cloudtrail.endpoint(call).data
        else:
            yield wire_cloudtrail.bedrock(call).data
        if traffic.rng.random() < 0.25:
            while True:
                record = background.routine(traffic.rng, call.start)
                if not record.foreign:
                    break
            yield record.data


def _azure(seed: int, day: str) -> Iterator[bytes]:
    traffic = Traffic(seed, day, "bench", "azure")
    for call in _calls(traffic, (APPS["azure-notebooks"], APPS["branch-copilot"]), day_start(day), 0.05):
        rows = wire_azure.request_response(
            call, object_id=call.actor.object_id, account="OAI-EXAMPLE-WEU", second_row=False
        )
        yield rows[0].data


def _litellm(seed: int, day: str) -> Iterator[bytes]:
    """From 3 to 13 kB: two of three with the price table entry, which is most of such a record."""
    traffic = Traffic(seed, day, "bench", "litellm")
    rng = traffic.rng
    for call in _calls(traffic, _LITELLM, day_start(day), 0.05):
        if rng.random() < 0.6:
            call.prompt += "\n\n" + text.document(rng, call.app.texts, rng.between(3, 24))
        if len(call.answer) < 900:
            call.answer += "\n" + text.document(rng, call.app.texts, rng.between(2, 10))
        yield wire_litellm.payload(call, prices=rng.random() < 0.667).data


def _prompt_events(seed: int, day: str) -> Iterator[bytes]:
    """LiteLLM records of about 3.4 kB, half of it prompt and answer, in the older form."""
    traffic = Traffic(seed, day, "bench", "litellm-3k")
    rng = traffic.rng
    for call in _calls(traffic, _LITELLM, day_start(day), 0.05):
        name = call.app.texts
        call.history = ()
        call.prompt = (call.prompt + " " + text.document(rng, name, 12))[:900]
        call.answer = (call.answer + " " + text.document(rng, name, 12))[:800]
        yield wire_litellm.older(call).data


def _invocation(seed: int, day: str) -> Iterator[bytes]:
    traffic = Traffic(seed, day, "bench", "bedrock")
    for call in _calls(traffic, (APPS["notebooks"],), day_start(day), 0.05):
        yield wire_bedrock.invocation(call).data


KINDS: dict[str, Callable[[int, str], Iterator[bytes]]] = {
    "cloudtrail": _cloudtrail,
    "azure_openai": _azure,
    "litellm": _litellm,
    "litellm_3k": _prompt_events,
    "bedrock_invocation": _invocation,
}
_MIX = ("cloudtrail", "azure_openai", "litellm")


def records(record_type: str, seed: int, day: str, count: int) -> Iterator[bytes]:
    """``count`` records of one of ``KINDS``; raises ``KeyError`` for another name."""
    return islice(KINDS[record_type](seed, day), count)


def files(seed: int, day: str, events: int) -> Iterator[tuple[str, bytes, tuple[str, int]]]:
    """Files of the mix: (path, bytes, (record type, number of records)), one in memory at a time.

    CloudTrail as ``{"Records":[...]}`` in gzip, Azure as PT1H.json, LiteLLM as .jsonl.
    """
    first_hour = int(day_start(day)) // 3600
    for index, kind in enumerate(_MIX):
        left = events // 3 + (1 if index < events % 3 else 0)
        source = KINDS[kind](seed, day)
        number = 0
        while left:
            count = min(PER_FILE[kind], left)
            left -= count
            yield (*_FRAMES[kind](number, first_hour + number, islice(source, count)), (kind, count))
            number += 1


def _cloudtrail_file(number: int, hour: int, rows: Iterator[bytes]) -> tuple[str, bytes]:
    year, month, day, clock = hour_parts(hour)
    name = f"{ACCOUNT}_CloudTrail_{REGION}_{year}{month}{day}T{clock}55Z_{number:016d}.json.gz"
    path = f"aws-cloudtrail/AWSLogs/{ACCOUNT}/CloudTrail/{REGION}/{year}/{month}/{day}/{name}"
    return path, gzip(b'{"Records":[' + b",".join(rows) + b"]}", _LEVEL)


def _azure_file(_: int, hour: int, rows: Iterator[bytes]) -> tuple[str, bytes]:
    year, month, day, clock = hour_parts(hour)
    when = f"y={year}/m={month}/d={day}/h={clock}/m=00/PT1H.json"
    path = f"azure/insights-logs-requestresponse/resourceId={wire_azure.resource_id('OAI-EXAMPLE-WEU')}/{when}"
    return path, b"\n".join(rows) + b"\n"


def _litellm_file(number: int, hour: int, rows: Iterator[bytes]) -> tuple[str, bytes]:
    year, month, day, _hour = hour_parts(hour)
    return f"litellm/bench/{year}-{month}-{day}/batch_{number:05d}.jsonl", b"\n".join(rows) + b"\n"


_FRAMES: dict[str, Callable[[int, int, Iterator[bytes]], tuple[str, bytes]]] = {
    "cloudtrail": _cloudtrail_file,
    "azure_openai": _azure_file,
    "litellm": _litellm_file,
}
