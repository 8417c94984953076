"""The report's questions, as named SQL over the view ``events`` (and ``dead_letters``).

Every value that a user gives is a bound parameter. Conditions and queries are the literals below: a filter that is set
adds its own constant condition, so that DuckDB can push it down to the Parquet files.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec


class Connection(Protocol):
    """What is asked of a connection: the guarded one of ``StoreReader.connect``, or DuckDB's own."""

    def execute(self, sql: str, parameters: Any = None, /) -> Any:
        """Run one statement; the result has ``description`` and ``fetchall``."""
        ...


class Filters(msgspec.Struct, frozen=True):
    """Which events to look at; an empty filter lets everything pass. Texts compare lower-case.

    Attributes:
        since, until: half-open range of the event's own time, naive UTC.
        tenant, department, model: exact values.
        user: user id, e-mail address or name.
    """

    since: datetime | None = None
    until: datetime | None = None
    tenant: str = ""
    department: str = ""
    model: str = ""
    user: str = ""


class Rows(msgspec.Struct, frozen=True):
    """A query's answer."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        """The rows by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


_CONDITIONS: Mapping[str, str] = {
    "since": "timestamp >= $since",
    "until": "timestamp < $until",
    "tenant": "tenant_id = $tenant",
    "department": "department = $department",
    "model": "model = $model",
    "user": "$user IN (user_id, user_email, user_name)",
}

# Constant pieces of the queries below, by the name that stands for them there.
_PIECES: Mapping[str, str] = {
    # A call as a turn of its session.
    "turn": """event_id, timestamp, tenant_id AS tenant, if(session_id <> '', 'session', 'user') AS kind,
        coalesce(nullif(session_id, ''), user_id) AS session, {who} AS who, left(prompt_text, 2000) AS prompt_text,
        prompt_hash, content_mode, (response_hash <> '' AND outcome_status = 'success') AS answered,
        (coalesce(response_refused, false) OR outcome_status = 'blocked') AS refused, injection_score AS score""",
    # Who acted, best name first. The last resort keeps the row: an access without a name is a finding of its own.
    # One person has an id per source (a name here, an Entra object id there): the directory's e-mail address, else its
    # name, puts them together. What nobody knows goes by the id of its source.
    "who": """CASE WHEN user_email <> '' THEN user_email
        WHEN user_name <> '' AND regexp_full_match(user_id, '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}') THEN user_name
        ELSE coalesce(nullif(user_id, ''), nullif(user_name, ''), nullif(agent, ''), nullif(app, ''),
            nullif(role, ''), nullif(credential_id, ''), '(not named)') END""",
    "failed": "outcome_status IN ('blocked', 'denied', 'throttled', 'error')",
    # What a reader of the report should look at, in one condition.
    "notable": """(coalesce(risk_score, 0) > 0 OR injection_tier <> '' OR len(leakage_types) > 0
        OR guardrail_action IN ('blocked', 'flagged', 'masked') OR outcome_status = 'blocked')""",
    # Control-plane actions that change what protects or constitutes the AI system, and every touch of the weights.
    "risky": """((action_kind IN ('guardrail', 'auth', 'admin', 'data') AND coalesce(read_only, false) = false)
        OR action_kind = 'weights')""",
}

# {e} stands for the events that pass the filters, {who} and the like for the pieces above.
_QUERIES: Mapping[str, str] = {
    "overview": """
        SELECT count(*) AS events, min(timestamp) AS first_seen, max(timestamp) AS last_seen,
            count(DISTINCT {who}) FILTER ({who} <> '(not named)') AS principals,
            count(DISTINCT nullif(department, '')) AS departments, count(DISTINCT nullif(model, '')) AS models,
            count(DISTINCT source) AS sources, sum(token_count) AS tokens, sum(cost_usd) AS cost_usd,
            count(*) FILTER (outcome_status = 'blocked') AS blocked,
            count(*) FILTER (outcome_status = 'denied') AS denied,
            count(*) FILTER (injection_tier = 'high') AS injection_high,
            count(*) FILTER (injection_tier = 'suspicious') AS injection_suspicious,
            count(*) FILTER (len(leakage_types) > 0) AS leaks,
            count(*) FILTER ({notable}) AS notable
        FROM {e}""",
    "timeline": """
        SELECT time_bucket($bucket, timestamp) AS time, count(*) AS events,
            count(*) FILTER (outcome_status = 'success') AS success,
            count(*) FILTER (outcome_status = 'blocked') AS blocked,
            count(*) FILTER (outcome_status IN ('denied', 'throttled', 'error')) AS failed,
            count(*) FILTER (outcome_status = 'unknown') AS unknown
        FROM {e} GROUP BY ALL ORDER BY time""",
    "outcomes": """
        SELECT outcome_status AS outcome, count(*) AS events, count(DISTINCT user_id) AS users
        FROM {e} GROUP BY ALL ORDER BY events DESC, outcome""",
    "users": """
        SELECT {who} AS who, mode(principal_type) AS type,
            array_to_string(list_sort(array_agg(DISTINCT nullif(department, ''))), ', ') AS department,
            count(*) AS events,
            count(DISTINCT nullif(model, '')) AS models, sum(token_count) AS tokens, sum(cost_usd) AS cost_usd,
            count(*) FILTER ({failed}) AS failed, count(*) FILTER ({notable}) AS notable, max(risk_score) AS max_risk
        FROM {e} GROUP BY who ORDER BY events DESC, who LIMIT $top""",
    "departments": """
        SELECT coalesce(nullif(department, ''), '(not known)') AS department, count(*) AS events,
            count(DISTINCT {who}) AS principals, sum(token_count) AS tokens, sum(cost_usd) AS cost_usd,
            count(*) FILTER (len(leakage_types) > 0) AS leaks, count(*) FILTER ({notable}) AS notable
        FROM {e} GROUP BY ALL ORDER BY events DESC, department LIMIT $top""",
    "models": """
        SELECT model_provider AS provider, model, count(*) AS events, count(DISTINCT {who}) AS principals,
            sum(token_count) AS tokens, sum(cost_usd) AS cost_usd,
            quantile_cont(latency_ms, 0.5) AS p50_ms, quantile_cont(latency_ms, 0.95) AS p95_ms,
            count(*) FILTER ({failed}) AS failed
        FROM {e} WHERE model <> '' GROUP BY provider, model ORDER BY events DESC, model LIMIT $top""",
    "actions": """
        SELECT action_kind AS kind, action, count(*) AS events, count(DISTINCT {who}) AS principals,
            count(*) FILTER ({failed}) AS failed
        FROM {e} GROUP BY kind, action ORDER BY events DESC, action LIMIT $top""",
    "prompts": """
        SELECT coalesce(nullif(class, ''), '(no text)') AS classification,
            count(*) FILTER (place = 'prompt') AS prompts, count(*) FILTER (place = 'response') AS responses
        FROM (SELECT 'prompt' AS place, prompt_classification AS class FROM {e} WHERE action_kind = 'inference'
            UNION ALL SELECT 'response', response_classification FROM {e} WHERE action_kind = 'inference')
        GROUP BY ALL ORDER BY prompts + responses DESC, classification""",
    "injections": """
        SELECT injection_tier AS tier, count(*) AS events, count(DISTINCT {who}) AS principals,
            count(*) FILTER (outcome_status = 'blocked') AS blocked,
            count(*) FILTER (outcome_status = 'success') AS went_through, max(injection_score) AS max_score
        FROM {e} WHERE injection_tier <> '' GROUP BY ALL ORDER BY tier""",
    "leaks": """
        SELECT split_part(leak, ':', 1) AS place, substr(leak, strpos(leak, ':') + 1) AS kind, count(*) AS events,
            count(DISTINCT who) AS principals, count(*) FILTER (outcome_status = 'blocked') AS blocked
        FROM (SELECT unnest(leakage_types) AS leak, {who} AS who, outcome_status FROM {e})
        GROUP BY ALL ORDER BY events DESC, place, kind LIMIT $top""",
    "guardrails": """
        SELECT coalesce(nullif(guardrail_name, ''), '(not named)') AS guardrail, guardrail_action AS verdict,
            array_to_string(list_sort(list_distinct(flatten(list(guardrail_categories)))), ', ') AS categories,
            count(*) AS events, count(DISTINCT {who}) AS principals
        FROM {e} WHERE guardrail_action NOT IN ('', 'allowed')
        GROUP BY guardrail, verdict ORDER BY events DESC, guardrail, verdict LIMIT $top""",
    # What other judges said, beside what aitrail said itself; contradictions first.
    "agreement": """
        SELECT judge, what, said, own, count(*) AS events, max(timestamp) AS last_seen,
            arg_max(event_id, (timestamp, event_id)) AS event_id
        FROM (SELECT split_part(opinion, '|', 1) AS judge, split_part(opinion, '|', 2) AS what,
                split_part(opinion, '|', 3) AS said, timestamp, event_id, CASE WHEN NOT judged THEN '-'
                WHEN split_part(opinion, '|', 2) = 'attack' THEN if(attack, 'yes', 'no') ELSE if(leak, 'yes', 'no')
                END AS own
            FROM (SELECT unnest(verdict_opinions) AS opinion, injection_tier <> '' AS attack,
                len(leakage_types) > 0 AS leak, classifier_version <> '' AS judged, timestamp, event_id FROM {e}))
        GROUP BY judge, what, said, own
        ORDER BY said IN ('yes', 'no') AND own IN ('yes', 'no') AND said <> own DESC, events DESC, judge, what, said
        LIMIT $top""",
    "injection_scores": """
        SELECT injection_score AS score, count(*) AS events, classifier_version AS version, min(timestamp) AS first,
            max(timestamp) AS last
        FROM {e} WHERE injection_score IS NOT NULL GROUP BY score, version ORDER BY score, version""",
    # Calls of sessions in the order of their time; without a session those of one user belong together.
    "session_turns": """
        SELECT * FROM (SELECT {turn} FROM {e}
            WHERE action_kind = 'inference' AND prompt_hash <> '' AND (session_id <> '' OR user_id <> '')
            ORDER BY timestamp DESC, event_id DESC LIMIT $top)
        ORDER BY timestamp, event_id""",
    "session_before": """
        SELECT * FROM (SELECT {turn} FROM events
            WHERE action_kind = 'inference' AND prompt_hash <> '' AND tenant_id = $tenant_is
                AND ($session_is <> '' AND session_id = $session_is OR $session_is = '' AND session_id = ''
                    AND user_id = $user_is)
                AND (timestamp < $moment OR timestamp = $moment AND event_id <= $one)
            ORDER BY timestamp DESC, event_id DESC LIMIT $top)
        ORDER BY timestamp, event_id""",
    "control_plane": """
        SELECT action_kind AS kind, action, {who} AS who,
            coalesce(nullif(any_value(resource_id), ''), any_value(destination_uri)) AS resource,
            outcome_status AS outcome, count(*) AS events, max(timestamp) AS last_seen, max(risk_score) AS max_risk
        FROM {e} WHERE {risky} GROUP BY kind, action, who, outcome
        ORDER BY array_position(['guardrail', 'weights', 'auth', 'data', 'admin'], kind), last_seen DESC LIMIT $top""",
    # Findings of rules whose evidence passes the filters.
    "detections": """
        SELECT severity, any_value(title) AS title, any_value(summary) AS summary, any_value(events) AS events,
            any_value(first_seen) AS first_seen, any_value(last_seen) AS last_seen, event_id
        FROM (SELECT *, unnest(evidence) AS one FROM findings) SEMI JOIN (SELECT event_id AS one FROM {e}) USING (one)
        GROUP BY event_id, severity
        ORDER BY array_position(['critical', 'high', 'medium', 'low', 'informational'], severity), first_seen, event_id
        LIMIT $top""",
    "findings": """
        SELECT max(risk_score) AS risk, who, department, why, action, arg_max(target, timestamp) AS target, outcome,
            count(*) AS events, max(timestamp) AS last_seen, arg_max(event_id, (timestamp, event_id)) AS event_id
        FROM (SELECT *, {who} AS who, coalesce(nullif(model, ''), resource_id) AS target, outcome_status AS outcome,
            CASE WHEN len(risk_reasons) > 0 THEN array_to_string(risk_reasons, ', ')
                 WHEN injection_tier <> '' THEN 'injection_' || injection_tier
                 WHEN len(leakage_types) > 0 THEN array_to_string(leakage_types, ', ')
                 WHEN guardrail_action <> '' THEN 'guardrail_' || guardrail_action
                 ELSE outcome_status END AS why
            FROM {e} WHERE {notable})
        GROUP BY who, department, why, action, outcome
        ORDER BY risk DESC NULLS LAST, events DESC, last_seen DESC, event_id LIMIT $top""",
    "sources": """
        SELECT source, count(*) AS events, min(timestamp) AS first_seen, max(timestamp) AS last_seen,
            max(ingested_at) AS last_read, count(*) FILTER (len(flags) > 0) AS flagged
        FROM {e} GROUP BY ALL ORDER BY events DESC, source""",
    "dead_letters": """
        SELECT source, code, record_type, stage, count(*) AS records, max(first_seen) AS newest
        FROM dead_letters WHERE resolved IS NULL GROUP BY ALL ORDER BY records DESC, source, code LIMIT $top""",
    "dead_letter_list": """
        SELECT id, code, record_type, stage, destination, source, origin, position, first_seen, resolved
        FROM dead_letters WHERE ($settled OR resolved IS NULL) AND ($code = '' OR code = $code)
            AND ($source = '' OR source = $source) AND ($destination = '' OR destination = $destination)
        ORDER BY first_seen DESC, id LIMIT $top""",
    "dead_letter": """
        SELECT id, code, field, record_type, stage, source, origin, position, "end", "index", destination, event_id,
            first_seen, resolved
        FROM dead_letters WHERE starts_with(id, $prefix) ORDER BY id LIMIT 6""",
    "event": "SELECT * FROM events WHERE starts_with(event_id, $prefix) ORDER BY event_id LIMIT 6",
}
NAMES: tuple[str, ...] = tuple(_QUERIES)
# Parameters besides the filters' own; `source` and `code` are those of dead letters.
_OWN_PARAMETERS = (
    "top", "bucket", "prefix", "settled", "code", "source", "destination",
    "tenant_is", "session_is", "user_is", "moment", "one",
)  # fmt: skip


def run(connection: Connection, name: str, filters: Filters | None = None, **bound: Any) -> Rows:
    """Run the query ``name`` over the events that pass ``filters``; ``bound`` are its own parameters (``top`` ...).

    Raises:
        KeyError: there is no such query, or a parameter that it needs is not given.
    """
    return fetch(connection, *_bound(name, filters, bound))


def stream(connection: Connection, name: str, filters: Filters | None = None, **bound: Any) -> Iterator[dict[str, Any]]:
    """Run a query as ``run`` does and give its rows one by one, so that memory holds a few thousand of them."""
    cursor = connection.execute(*_bound(name, filters, bound))
    names = [str(column[0]) for column in cursor.description or ()]
    while rows := cursor.fetchmany(_STREAMED):
        for row in rows:
            yield dict(zip(names, row, strict=True))


_STREAMED = 2_000


def _bound(name: str, filters: Filters | None, bound: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    sql = _QUERIES[name]
    values = {
        key: value.lower() if isinstance(value, str) else value
        for key, value in msgspec.structs.asdict(filters or Filters()).items()
        if value
    }
    parameters = {key: bound[key] for key in _OWN_PARAMETERS if f"${key}" in sql}
    if "{e}" in sql:
        parameters |= values
    return _expand(sql, tuple(values)), parameters


def _expand(sql: str, conditions: tuple[str, ...]) -> str:
    """Put the constant pieces into a query; nothing here comes from outside this file."""
    events = "events"
    if conditions:
        where = " AND ".join(_CONDITIONS[key] for key in conditions)
        events = f"(SELECT * FROM events WHERE {where})"  # noqa: S608  (constants of _CONDITIONS)
    for name, piece in {**_PIECES, "e": events}.items():
        sql = sql.replace("{" + name + "}", piece)
    return sql


def fetch(connection: Connection, sql: str, parameters: Mapping[str, Any] | None = None) -> Rows:
    """Run ``sql`` with bound ``parameters`` and take all rows."""
    cursor = connection.execute(sql, dict(parameters or {}))
    columns: Sequence[Any] = cursor.description or ()
    return Rows(tuple(str(column[0]) for column in columns), cursor.fetchall())
