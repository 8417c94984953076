"""What a HEC answer means: one table from Splunk's response code, one from the HTTP status where there is no code.

Source of the codes: Splunk docs, "Troubleshoot HTTP Event Collector" (possible error codes) and "HTTP Event Collector
REST API endpoints"; 23-27 from the release notes of Splunk 9 and the OpenTelemetry and Java clients.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from aitrail.net.http import Response

Action = Literal[
    "taken",  # accepted
    "taken_slow",  # accepted, and asks for less
    "healthy",  # answer to a health check
    "retry",  # not now; another endpoint may
    "rotate",  # not now on this channel; take a new one
    "auth",  # the token is refused
    "config",  # a setting here or at the server is wrong; hold everything
    "data",  # one event is refused; ``invalid-event-number`` may say which
    "too_large",  # the request is too large; halve it
]

_TOKENS = "Settings > Data inputs > HTTP Event Collector"
_GLOBAL = f"{_TOKENS} > Global Settings"


class Rule(msgspec.Struct, frozen=True):
    """One row: the HTTP status that Splunk sends with the code, what it means, what to do, and how to fix it."""

    http: int
    meaning: str
    action: Action
    hint: str = ""


CODES: Mapping[int, Rule] = {
    0: Rule(200, "success", "taken"),
    1: Rule(403, "token disabled", "auth", f"enable the token in {_TOKENS}"),
    2: Rule(401, "token is required", "auth", "set token to a reference such as env:SPLUNK_HEC_TOKEN"),
    3: Rule(401, "invalid authorization", "auth", "token must be the bare value of a HEC token, not a user's password"),
    4: Rule(403, "invalid token", "auth", f"copy the token's value from {_TOKENS} of this very server"),
    5: Rule(400, "no data", "data"),
    6: Rule(400, "invalid data format", "data"),
    7: Rule(
        400,
        "incorrect index",
        "config",
        f"create the index, then add it to the token's Selected Indexes in {_TOKENS}, or change index",
    ),
    8: Rule(500, "internal server error", "retry"),
    9: Rule(503, "server is busy", "retry"),
    10: Rule(
        400,
        "data channel is missing",
        "config",
        f"the token asks for indexer acknowledgement: set ack = true, or switch it off for the token in {_TOKENS}",
    ),
    11: Rule(400, "invalid data channel", "config", "this is a defect: report it with the version of the server"),
    12: Rule(400, "event field is required", "data"),
    13: Rule(400, "event field cannot be blank", "data"),
    14: Rule(
        400,
        "indexer acknowledgement is disabled",
        "config",
        f"enable it for the token in {_TOKENS}, or set ack = false (Splunk Cloud has it for Firehose only)",
    ),
    15: Rule(400, "error in handling indexed fields", "data"),
    16: Rule(400, "query string authorization is not enabled", "config", "a proxy moved the token into the URL"),
    17: Rule(200, "healthy", "healthy"),
    18: Rule(503, "unhealthy, queues are full", "retry"),
    19: Rule(503, "unhealthy, acknowledgement service is unavailable", "retry"),
    20: Rule(503, "unhealthy, queues are full, acknowledgement service is unavailable", "retry"),
    21: Rule(400, "invalid token", "auth", f"copy the token's value from {_TOKENS} of this very server"),
    22: Rule(400, "token disabled", "auth", f"enable the token in {_TOKENS}"),
    23: Rule(503, "server is shutting down", "retry"),
    24: Rule(200, "queue is near capacity", "taken_slow"),
    25: Rule(200, "acknowledgement channel is near capacity", "taken_slow"),
    26: Rule(429, "queue is at capacity", "retry"),
    27: Rule(429, "acknowledgement channel is at capacity", "rotate"),
}

# Without a code the answer is not HEC's own: nothing is judged by it, so nothing is called delivered or refused.
_NOT_HEC = "this is not the answer of a HTTP Event Collector: check host, port (8088, Splunk Cloud 443) and proxies"
STATUSES: Mapping[int, Rule] = {
    400: Rule(400, "bad request, without a HEC code", "config", _NOT_HEC),
    401: Rule(401, "unauthorized", "auth", f"copy the token's value from {_TOKENS}"),
    403: Rule(403, "forbidden", "auth", f"enable the token in {_TOKENS}, and allow this address in the IP allow list"),
    404: Rule(404, "not found", "config", f"enable HEC in {_GLOBAL}, and check the url"),
    405: Rule(405, "method not allowed", "config", _NOT_HEC),
    407: Rule(407, "the proxy wants credentials", "config", "give them in HTTPS_PROXY, or set proxy"),
    408: Rule(408, "request timeout", "retry"),
    413: Rule(413, "request is too large", "too_large"),
    415: Rule(415, "unsupported media type", "config", _NOT_HEC),
    425: Rule(425, "too early", "retry"),
    429: Rule(429, "too many requests", "retry"),
}


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A HEC answer, read: ``number`` is invalid-event-number (base not certain), ``ack`` the ackId."""

    rule: Rule
    status: int
    code: int | None = None
    number: int | None = None
    ack: int | None = None

    @property
    def label(self) -> str:
        """The bounded reason code: ``hec_6``, or ``http_413`` where there was no code."""
        return f"hec_{self.code}" if self.code is not None else f"http_{self.status}"

    @property
    def sentence(self) -> str:
        """What the receiver said, in our words: its own text is never repeated."""
        return (
            f"HTTP {self.status}" + (f", code {self.code}" if self.code is not None else "") + f": {self.rule.meaning}"
        )


class _Body(msgspec.Struct, gc=False):
    code: int | None = None
    number: int | None = msgspec.field(default=None, name="invalid-event-number")
    ack: int | None = msgspec.field(default=None, name="ackId")


_decode = msgspec.json.Decoder(_Body).decode


def read_answer(response: Response) -> Answer:
    """Judge a response; total: whatever the body holds gives an answer."""
    try:
        body = _decode(response.body)
    except (msgspec.MsgspecError, RecursionError):
        body = _Body()
    rule = CODES.get(body.code) if body.code is not None else None
    if response.status == 413:
        rule = STATUSES[413]
    elif rule is not None and (rule.http < 300) != (response.status < 300):
        # Code and status contradict each other: believe neither that it worked nor that an event is bad.
        rule = None
    if rule is None:
        return Answer(_by_status(response.status), response.status)
    return Answer(rule, response.status, body.code, body.number, body.ack)


def _by_status(status: int) -> Rule:
    known = STATUSES.get(status)
    if known is not None:
        return known
    if status >= 500:
        return Rule(status, "server error", "retry")
    return Rule(status, "unknown answer", "config", _NOT_HEC)
