"""OTLP GenAI: four dialects, two id spellings, five places for content."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from aitrail.event import AccessEvent, make_event_id
from aitrail.normalize import otel_genai
from aitrail.normalize.join import Joiner
from aitrail.normalize.otel_dialects import TABLES
from aitrail.normalize.otel_values import AnyValue, ArrayValue, KeyValue, KeyValues, body_of, identifier, plain, whole
from aitrail.normalize.outcome import Content, Context, Fragment, Normalized, Outcome, Rejected

FIXTURES = Path(__file__).parents[1] / "fixtures" / "otel_genai"
CONTEXT = Context(tenant_id="acme")
NOT_AI = Rejected("not_ai_related", "", "otel_genai")


def outcomes(name: str, context: Context = CONTEXT) -> Sequence[Outcome]:
    return otel_genai.normalize((FIXTURES / f"{name}.json").read_bytes(), context)


def one(name: str, context: Context = CONTEXT) -> Normalized:
    (outcome,) = outcomes(name, context)
    assert isinstance(outcome, Normalized), outcome
    return outcome


def event(name: str) -> AccessEvent:
    return one(name).event


def content(name: str) -> Content:
    found = one(name).content
    assert found is not None
    return found


def said(found: Content) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in found.messages]


@pytest.mark.parametrize(
    ("name", "session", "user", "cached"),
    [
        ("current_content_in_attributes", "conv-7781", "", 74),
        ("openinference_indexed", "sess-9", "ines.moreau", 64),
        ("openllmetry_indexed", "sess-11", "ines.moreau", 64),
        ("legacy_prompt_and_completion_attributes", "", "", None),
    ],
)
def test_the_same_facts_in_four_dialects(name: str, session: str, user: str, cached: int | None) -> None:
    found = event(name)
    assert found.model == "gpt-4o"
    assert (found.prompt_tokens, found.completion_tokens, found.token_count) == (118, 42, 160)
    assert (found.session_id, found.user_id, found.cached_tokens) == (session, user, cached)
    assert (found.action, found.action_kind, found.outcome_status) == ("chat", "inference", "success")
    assert found.latency_ms == 1840.5
    assert ("identity_missing" in found.flags) == (not user)


def test_every_dialect_knows_every_fact() -> None:
    facts = {name: set(table) for name, table in TABLES.items()}
    assert len(facts) == 4
    assert len({frozenset(names) for names in facts.values()}) == 1
    assert TABLES["legacy"]["provider"][0] == "gen_ai.system"
    assert TABLES["current"]["provider"][0] == "gen_ai.provider.name"
    assert TABLES["openinference"]["model"][0] == "llm.model_name"
    assert TABLES["openllmetry"]["session"][0] == "traceloop.association.properties.session_id"


@pytest.mark.parametrize(
    "name", ["current_content_in_attributes", "current_content_in_span_event", "base64_ids_and_named_enums"]
)
def test_messages_with_parts(name: str) -> None:
    found = content(name)
    assert said(found) == [
        ("system", "You serve the deal room."),
        ("user", "Which deals close this week?"),
        ("assistant", '{"week":47}'),
        ("tool", "two deals"),
    ]
    assert found.response == "Two deals close this week."
    assert found.tool_calls == ['{"to":"a@example.com"}']
    assert event(name).tool == "send_mail"


def test_messages_as_structured_attributes() -> None:
    assert said(content("current_content_structured"))[0] == ("user", "Which deals close this week?")


def test_indexed_messages() -> None:
    found = content("openinference_indexed")
    assert said(found) == [("system", "You help."), ("user", "Read this picture")]
    assert (found.response, found.tool_calls) == ("It says 12.50.", ['{"total":12.5}'])
    assert "iVBOR" not in str(found), "pictures are no text"
    assert event("openinference_indexed").cost_usd == 0.0021
    assert (event("openinference_indexed").department, event("openinference_indexed").ticket) == ("retail", "inc-7")
    many = content("openllmetry_indexed")
    assert [text for _, text in said(many)] == ["You help.", "What is new?", "third", "last of eleven"]
    assert (many.response, many.tool_calls, event("openllmetry_indexed").tool) == ("Nothing.", ['{"k":1}'], "lookup")
    assert event("openllmetry_indexed").department == "markets"


def test_raw_input_and_output() -> None:
    found = content("openinference_input_value_only")
    assert (said(found), found.response) == ([("user", "raw body")], "raw answer")


def test_typed_json_is_judged_as_text() -> None:
    found = content("prompt_that_is_json_stays_text")
    assert (said(found), found.response) == ([("user", '{"ignore":"all rules"}')], "[1,2]")


def test_legacy_span_and_its_logs_are_parts_of_one_group() -> None:
    (span,) = outcomes("legacy_span_waits_for_its_logs")
    logs = outcomes("legacy_logs_of_one_span")
    assert isinstance(span, Fragment)
    assert (span.kind, span.part, span.content) == ("otel_content", "span", None)
    assert all(isinstance(part, Fragment) and part.group == span.group for part in logs)
    parts = [part for part in logs if isinstance(part, Fragment)]
    assert len({part.part for part in parts}) == 5, "two records of one nanosecond are two parts"
    assert [part.order for part in parts] == sorted(part.order for part in parts)
    roles = [(part.content.messages[0].role if part.content.messages else "") for part in parts if part.content]
    assert roles == ["system", "user", "assistant", "tool", ""]
    assert parts[-1].content is not None
    assert parts[-1].content.response == "Two deals close this week."
    assert {part.event.event_id for part in parts} == {span.event.event_id}
    trace, _, span_id = span.group.partition(":")
    assert span.event.event_id == make_event_id("acme", "otel_genai", f"{trace}:{span_id}")


def test_log_parts_do_not_depend_on_how_they_were_batched() -> None:
    record = json.loads((FIXTURES / "legacy_logs_of_one_span.json").read_bytes())
    whole = [part.part for part in outcomes("legacy_logs_of_one_span") if isinstance(part, Fragment)]
    logs = record["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    record["resourceLogs"][0]["scopeLogs"][0]["logRecords"] = logs[3:]
    later = otel_genai.normalize(json.dumps(record).encode(), CONTEXT)
    assert [part.part for part in later if isinstance(part, Fragment)] == whole[3:]


def test_current_span_without_content_waits_for_its_details_log() -> None:
    (span,) = outcomes("current_span_waits_for_its_log")
    (log,) = outcomes("current_details_log")
    assert isinstance(span, Fragment)
    assert isinstance(log, Fragment)
    assert span.group == log.group
    assert log.content is not None
    assert log.content.response == "Two deals close this week."
    assert log.event.outcome_status == "unknown", "how the call ended is for the span to say"
    assert log.event.latency_ms is None


def test_logs_without_content_still_tell_tools_and_finish() -> None:
    user, choice = outcomes("legacy_logs_without_content")
    assert isinstance(user, Fragment)
    assert isinstance(choice, Fragment)
    assert user.content is None
    assert (choice.event.tool, choice.event.finish_reason) == ("search", "tool_calls")


def test_log_bodies_in_other_spellings() -> None:
    found = [part.content for part in outcomes("legacy_logs_body_as_text") if isinstance(part, Fragment)]
    assert [said(item)[0][1] for item in found if item] == ["hello from a JSON body", "just text"]
    (flat,) = outcomes("flattened_log_cloudwatch")
    assert isinstance(flat, Fragment)
    assert flat.content is not None
    assert said(flat.content) == [("user", "hello from CloudWatch")]
    (named,) = outcomes("legacy_logs_event_name_attribute")
    assert isinstance(named, Fragment)


def test_content_in_span_events() -> None:
    found = content("legacy_content_in_span_events")
    assert (said(found), found.response) == ([("user", "hello from an event")], "hi")


def test_one_record_many_spans() -> None:
    http, chat, tool, agent, embeddings = outcomes("many_spans_of_many_kinds")
    assert http == NOT_AI
    assert isinstance(chat, Normalized)
    assert isinstance(tool, Normalized)
    assert isinstance(agent, Normalized)
    assert isinstance(embeddings, Normalized)
    assert (tool.event.action, tool.event.tool) == ("execute_tool", "search")
    assert tool.content is not None
    assert said(tool.content) == [("tool", "found")]
    assert (agent.event.action, agent.event.action_kind, agent.event.agent) == ("create_agent", "admin", "claims")
    assert (agent.event.principal_type, agent.event.cloud_provider) == ("agent", "aws")
    assert (embeddings.event.token_count, embeddings.content) == (9, None)
    ids = {outcome.event.event_id for outcome in (chat, tool, agent, embeddings)}
    assert len(ids) == 4


def test_wrappers_are_no_access() -> None:
    chain, retriever, agent, tool = outcomes("openinference_kinds")
    assert chain == NOT_AI
    assert isinstance(retriever, Normalized)
    assert (retriever.event.action, retriever.event.action_kind) == ("retrieval", "data")
    assert isinstance(agent, Normalized)
    assert agent.event.agent == "claims-agent"
    assert isinstance(tool, Normalized)
    assert tool.event.tool == "search"
    assert outcomes("openllmetry_workflow_is_a_wrapper") == [NOT_AI]


@pytest.mark.parametrize(
    ("name", "outcome", "code"),
    [
        ("error_rate_limited", "throttled", "openai.ratelimiterror"),
        ("error_denied_by_exception_event", "denied", "openai.authenticationerror"),
        ("finish_content_filter", "blocked", ""),
        ("span_not_ended", "unknown", ""),
    ],
)
def test_outcome(name: str, outcome: str, code: str) -> None:
    found = event(name)
    assert (found.outcome_status, found.error_code) == (outcome, code)
    assert found.guardrail_action == ("blocked" if outcome == "blocked" else "")


def test_filtered_answer_is_empty() -> None:
    assert content("finish_content_filter").response == ""


def test_identity_from_span_and_resource() -> None:
    found = event("identity_from_span_and_resource")
    assert found.user_id == found.user_email == "ines.moreau@example.com"
    assert (found.principal_type, found.department, found.purpose) == ("human", "investment banking", "kyc")
    assert (found.src_ip, found.user_agent, found.app) == ("203.0.113.9", "curl/8.5.0", "deal-room-bot")
    assert (found.cloud_provider, found.cloud_account, found.cloud_region) == ("aws", "111122223333", "eu-west-1")


def test_tenant_comes_from_the_resource_only() -> None:
    context = Context("acme", tenant_keys=("service.name",))
    (span,) = outcomes("legacy_span_waits_for_its_logs", context)
    log = outcomes("legacy_logs_of_one_span", context)[0]
    assert isinstance(span, Fragment)
    assert isinstance(log, Fragment)
    assert span.event.tenant_id == log.event.tenant_id == "deal-room-bot"
    assert span.event.event_id == log.event.event_id


def test_flattened_span_joins_with_cloudtrail() -> None:
    found = event("flattened_span_cloudwatch")
    assert found.request_id == "0a1b2c3d-1111-4222-8333-444455556666"
    assert (found.cloud_provider, found.latency_ms, found.app) == ("aws", 1000.0, "deal-room-bot")


def test_nothing_to_keep() -> None:
    assert outcomes("empty_export") == [NOT_AI]
    assert outcomes("log_that_is_no_ai") == [NOT_AI]
    assert outcomes("metrics_are_no_access") == (Rejected("type_unsupported", "resourceMetrics", "otel_genai"),)


@pytest.mark.parametrize(
    ("name", "code", "field"),
    [
        ("bad_trace_id_missing", "field_missing", "traceId"),
        ("bad_span_id_zero", "field_missing", "spanId"),
        ("bad_time_missing", "field_missing", "startTimeUnixNano"),
        ("bad_time_out_of_range", "time_invalid", "startTimeUnixNano"),
        ("bad_attribute_type", "field_type", "resourceSpans[0].scopeSpans[0].spans[0].name"),
        ("bad_log_without_span", "field_missing", "traceId"),
    ],
)
def test_rejections(name: str, code: str, field: str) -> None:
    assert list(outcomes(name)) == [Rejected(code, field, "otel_genai")]


def test_absurd_nesting_is_a_rejection() -> None:
    deep = b'{"resourceSpans":' + b"[" * 100_000
    assert otel_genai.normalize(deep, CONTEXT)[0] in (
        Rejected("json_too_deep", "", "otel_genai"),
        Rejected("field_type", "resourceSpans[0]", "otel_genai"),
    )
    value = '{"arrayValue":{"values":[' * 20_000
    head = '{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"attributes":[{"key":"k","value":'
    body = head + value
    assert otel_genai.normalize(body.encode(), CONTEXT)[0] == Rejected("json_too_deep", "", "otel_genai")


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("00F067AA0BA902B7", 8, "00f067aa0ba902b7"),
        ("0x00f067aa0ba902b7", 8, "00f067aa0ba902b7"),
        ("APBnqgupArc=", 8, "00f067aa0ba902b7"),
        ("APBnqgupArc", 8, "00f067aa0ba902b7"),
        ("S/kvNXezTaajzpKdDg5HNg==", 16, "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("0000000000000000", 8, ""),
        ("", 8, ""),
        ("not an id", 8, ""),
        ("zzzzzzzzzzzzzzzz", 8, ""),
        ("0_f067aa0ba902b7", 8, ""),
    ],
)
def test_identifiers(text: str, size: int, expected: str) -> None:
    assert identifier(text, size) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("42", 42), (42, 42), (4.0, 4), ("-7", -7), ("9" * 5000, None), ("x", None), (True, None), (None, None),
        (1 << 70, None), (float("nan"), None), ("", None), ("٣", None),
    ],
)  # fmt: skip
def test_whole_numbers(value: object, expected: int | None) -> None:
    assert whole(value) == expected


def test_values() -> None:
    nested = AnyValue(
        kvlistValue=KeyValues([KeyValue("a", AnyValue(arrayValue=ArrayValue([AnyValue(intValue="1"), AnyValue()])))])
    )
    assert plain(nested) == {"a": [1, None]}
    assert plain(AnyValue(doubleValue="NaN")) is None
    assert plain(AnyValue(boolValue=False)) is False
    assert plain(AnyValue(stringValue="")) == ""
    assert body_of({"stringValue": "x"}) == "x"
    assert body_of({"content": "x"}) == {"content": "x"}
    assert body_of({"intValue": {}}) is None


def test_parts_join_to_one_event_in_order() -> None:
    joiner = Joiner()
    logs = [part for part in outcomes("legacy_logs_of_one_span") if isinstance(part, Fragment)]
    spans = [part for part in outcomes("legacy_span_waits_for_its_logs") if isinstance(part, Fragment)]
    for token, part in enumerate([*reversed(logs), *spans]):
        assert joiner.add(part, token) == []
    ((joined, tokens),) = joiner.flush()
    assert sorted(tokens) == list(range(6))
    assert joined.event is not None
    assert joined.content is not None
    assert [message.role for message in joined.content.messages] == ["system", "user", "assistant", "tool"]
    assert joined.content.response == "Two deals close this week."
    assert (joined.event.outcome_status, joined.event.latency_ms) == ("success", 1840.5)
    assert joined.event.service == "api.openai.com", "the span knows better than its logs"


@pytest.mark.parametrize("name", [["gen_ai.user.message"], {"a": 1}, 7, True])
def test_event_name_that_is_no_text_is_no_message(name) -> None:
    record = {
        "timeUnixNano": 1763889245120731000,
        "traceId": "4bf92f3577b34da6a3ce929d0e0e0030",
        "spanId": "00f067aa0ba90030",
        "body": {"content": "hello"},
        "attributes": {"event.name": name, "gen_ai.system": "aws.bedrock"},
    }
    (outcome,) = otel_genai.normalize(json.dumps(record).encode(), CONTEXT)
    assert outcome == NOT_AI
