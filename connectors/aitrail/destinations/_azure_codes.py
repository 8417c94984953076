"""What an answer of the Logs Ingestion API means: by the code in its body, else by its status.

Sources: Azure Monitor docs, "Logs Ingestion API in Azure Monitor" (status 204, troubleshooting table), "Azure Monitor
service limits", "Set up a table with the Auxiliary plan" (time range of one call).
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

Action = Literal["taken", "retry", "auth", "config", "data", "too_large"]

ROLE = "Monitoring Metrics Publisher"
_NOT_AZURE = "this is not the answer of a data collection endpoint: check url and proxies"
_TARGET = (
    "dcr must be the immutable id (dcr-...) from the JSON view of the data collection rule, stream one of its "
    "streamDeclarations (Custom-...), and url the endpoint of the same rule"
)


class Rule(msgspec.Struct, frozen=True):
    """One row: what it means, what to do, and how to fix it."""

    meaning: str
    action: Action
    hint: str = ""


CODES: Mapping[str, Rule] = {
    "contentlengthlimitexceeded": Rule("request is too large", "too_large"),
    "recordstimerangeismorethan30minutes": Rule(
        "the records of one request span more than 30 minutes", "config", "set plan = 'auxiliary'"
    ),
    "timeoutexpired": Rule("took too long", "retry"),
}
STATUSES: Mapping[int, Rule] = {
    204: Rule("taken", "taken"),
    400: Rule("a record is refused", "data"),
    401: Rule(
        "the token is refused",
        "auth",
        "the identity must be of the tenant of the data collection rule; check its secret, and this machine's clock",
    ),
    403: Rule(
        f"the identity lacks the role {ROLE} on the data collection rule",
        "auth",
        f"data collection rule > Access control (IAM) > add role assignment: {ROLE}; it takes up to 30 minutes",
    ),
    404: Rule("no such data collection rule or stream", "config", _TARGET),
    407: Rule("the proxy wants credentials", "config", "give them in HTTPS_PROXY, or set proxy"),
    408: Rule("request timeout", "retry"),
    413: Rule("request is too large", "too_large"),
    425: Rule("too early", "retry"),
    429: Rule("the rule's rate limit is reached (2 GB or 12,000 requests a minute)", "retry"),
}


class _Error(msgspec.Struct, gc=False):
    code: str = ""


class _Body(msgspec.Struct, gc=False):
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Body).decode


def judge(status: int, body: bytes) -> Rule:
    """Judge an answer; total: every status and body gives a rule. Only 204 is a delivery."""
    if status == 204:
        return STATUSES[204]
    if 400 <= status < 500:
        try:
            error = _decode(body).error
        except (msgspec.MsgspecError, ValueError, RecursionError):
            error = None
        rule = CODES.get(error.code.lower()) if error is not None else None
        if rule is not None:
            return rule
    known = STATUSES.get(status)
    if known is not None:
        return known
    return Rule("server error", "retry") if status >= 500 else Rule("unknown answer", "config", _NOT_AZURE)
