"""What an answer of Elasticsearch means: tables for the items of a bulk answer, and for the answer as a whole.

Sources: Elasticsearch API reference, "Bulk index or delete documents" (items, statuses, ``failure_store``), "Security
privileges", "Cluster-level shard allocation" (flood stage), "Data streams", "Failure store"; the exception names are
those of the server's error bodies (snake case).
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

ItemAction = Literal["delivered", "duplicate", "retry", "rejected", "auth", "config"]
CallAction = Literal["taken", "retry", "auth", "config", "data", "too_large"]

# The index privileges that a sender needs, and no more (Elastic, "Security privileges").
PRIVILEGES = ("auto_configure", "create_doc")


class Item(msgspec.Struct, frozen=True, gc=False):
    """One row for an item: what became of it, and the bounded code under which it is counted."""

    action: ItemAction
    code: str = ""


# By the type of the item's error: more exact than its status.
ITEM_ERRORS: Mapping[str, Item] = {
    "version_conflict_engine_exception": Item("duplicate"),
    "es_rejected_execution_exception": Item("retry", "es_rejected_execution"),
    "circuit_breaking_exception": Item("retry", "es_circuit_breaker"),
    "unavailable_shards_exception": Item("retry", "es_unavailable_shards"),
    "no_shard_available_action_exception": Item("retry", "es_unavailable_shards"),
    "primary_missing_action_exception": Item("retry", "es_unavailable_shards"),
    "node_closed_exception": Item("retry", "es_node_closed"),
    "node_disconnected_exception": Item("retry", "es_node_closed"),
    "node_not_connected_exception": Item("retry", "es_node_closed"),
    "process_cluster_event_timeout_exception": Item("retry", "es_timeout"),
    "timeout_exception": Item("retry", "es_timeout"),
    # Read-only, disk above the flood stage, or no master: it passes, or a person lifts it; no event is at fault.
    "cluster_block_exception": Item("retry", "es_cluster_block"),
    "security_exception": Item("auth", "es_security"),
    "index_not_found_exception": Item("config", "es_index_not_found"),
    "index_closed_exception": Item("config", "es_index_closed"),
    "invalid_index_name_exception": Item("config", "es_invalid_index_name"),
    "invalid_alias_name_exception": Item("config", "es_invalid_index_name"),
    "mapper_parsing_exception": Item("rejected", "es_mapping"),
    "document_parsing_exception": Item("rejected", "es_mapping"),
    "strict_dynamic_mapping_exception": Item("rejected", "es_mapping"),
    "mapper_exception": Item("rejected", "es_mapping"),
    "illegal_argument_exception": Item("rejected", "es_illegal_argument"),
    "action_request_validation_exception": Item("rejected", "es_illegal_argument"),
    "ingest_processor_exception": Item("rejected", "es_ingest_pipeline"),
    "fail_processor_exception": Item("rejected", "es_ingest_pipeline"),
    "script_exception": Item("rejected", "es_ingest_pipeline"),
}
# By the item's status, where its error has no type or one that is not listed.
ITEM_STATUSES: Mapping[int, Item] = {
    201: Item("delivered"),
    400: Item("rejected", "es_400"),
    401: Item("auth", "es_401"),
    403: Item("auth", "es_403"),
    404: Item("config", "es_404"),
    408: Item("retry", "es_408"),
    409: Item("duplicate"),
    413: Item("rejected", "event_too_large"),
    429: Item("retry", "es_429"),
    500: Item("retry", "es_500"),
    502: Item("retry", "es_502"),
    503: Item("retry", "es_503"),
    504: Item("retry", "es_504"),
}
# The document is in the stream's failure store, not in the stream: nobody's rule will see it.
FAILURE_STORE = Item("rejected", "es_failure_store")
_STORED_ASIDE = frozenset({"used", "failed"})


class Rule(msgspec.Struct, frozen=True):
    """One row for an answer as a whole: what it means, what to do, and how to fix it."""

    meaning: str
    action: CallAction
    hint: str = ""


_GRANT = (
    f"give the API key (or the role) the index privileges {' and '.join(PRIVILEGES)} on logs-ai_audit.access-*: "
    "Kibana > Stack Management > API keys (or Roles)"
)
_NOT_ELASTIC = "this is not the answer of Elasticsearch: check host, port (9200, Elastic Cloud 443) and proxies"
_VERSIONS = (
    "client and server are of different major versions: install the client of the server's, "
    "e.g. pip install 'elasticsearch<9' for a server 8"
)

STATUSES: Mapping[int, Rule] = {
    200: Rule("taken", "taken"),
    400: Rule("bad request", "config", _NOT_ELASTIC),
    401: Rule("credentials are refused", "auth", "make a new API key and put it where api_key points"),
    403: Rule("a privilege is missing", "auth", _GRANT),
    404: Rule("not found", "config", _NOT_ELASTIC),
    405: Rule("method not allowed", "config", _NOT_ELASTIC),
    406: Rule("media type not acceptable", "config", _VERSIONS),
    407: Rule("the proxy wants credentials", "config", "give them in HTTPS_PROXY, or set proxy"),
    408: Rule("request timeout", "retry"),
    413: Rule("request is too large", "too_large"),
    415: Rule("unsupported media type", "config", _VERSIONS),
    425: Rule("too early", "retry"),
    429: Rule("too many requests", "retry"),
}
# A whole answer 400, by the type of its error.
BAD_REQUESTS: Mapping[str, Rule] = {
    "media_type_header_exception": Rule("media type not acceptable", "config", _VERSIONS),
    "parse_exception": Rule("request cannot be read", "data"),
    "parsing_exception": Rule("request cannot be read", "data"),
    "x_content_parse_exception": Rule("request cannot be read", "data"),
    "json_parse_exception": Rule("request cannot be read", "data"),
    "json_e_o_f_exception": Rule("request cannot be read", "data"),
    "illegal_argument_exception": Rule("request is refused", "data"),
    "action_request_validation_exception": Rule("request is refused", "data"),
    "security_exception": Rule("credentials are refused", "auth", _GRANT),
}


class Answer(msgspec.Struct, frozen=True):
    """An answer: status, lower-case headers, decoded JSON (None when there was none)."""

    status: int
    headers: Mapping[str, str]
    body: Any


def judge_item(outcome: Any) -> Item | None:
    """Judge the inside of one item (``{"status": 201}``); None when it is no item that Elasticsearch writes."""
    if not isinstance(outcome, dict):
        return None
    status = outcome.get("status")
    if not isinstance(status, int):
        return None
    error = outcome.get("error")
    kind = error.get("type") if isinstance(error, dict) else None
    if status == 201:
        if error is not None:
            return None
        aside = outcome.get("failure_store")
        return FAILURE_STORE if isinstance(aside, str) and aside in _STORED_ASIDE else ITEM_STATUSES[201]
    if status < 300:
        return None
    if status == 409 and kind is not None and kind != "version_conflict_engine_exception":
        return Item("retry", "es_409")
    known = ITEM_ERRORS.get(kind) if isinstance(kind, str) else None
    if known is not None and not (known.action == "rejected" and (status >= 500 or status == 429)):
        return known
    if status in ITEM_STATUSES:
        return ITEM_STATUSES[status]
    return Item("rejected", "es_4xx") if 400 <= status < 500 else Item("retry", "es_5xx")


def judge_call(status: int, body: Any) -> Rule:
    """Judge an answer as a whole; total: every status gives a rule."""
    if status == 400 and isinstance(body, dict) and isinstance(body.get("error"), dict):
        kind = body["error"].get("type")
        return (BAD_REQUESTS.get(kind) if isinstance(kind, str) else None) or Rule("request is refused", "data")
    known = STATUSES.get(status)
    if known is not None:
        return known
    return Rule("server error", "retry") if status >= 500 else Rule("unknown answer", "config", _NOT_ELASTIC)
