"""LiteLLM: the traps of the reference page, one test each, on the fixtures that show them."""

import json
from pathlib import Path
from typing import Any

import pytest

from aitrail.event import AccessEvent, make_event_id
from aitrail.normalize import litellm, litellm_spend
from aitrail.normalize.litellm_outcome import judge
from aitrail.normalize.litellm_types import ErrorInformation, Guardrail
from aitrail.normalize.litellm_values import moment
from aitrail.normalize.outcome import Content, Context, Normalized, Rejected

FIXTURES = Path(__file__).parents[1] / "fixtures"
CONTEXT = Context(tenant_id="acme")


def raw(name: str, kind: str = "litellm") -> bytes:
    return (FIXTURES / kind / f"{name}.json").read_bytes()


def normalized(name: str, kind: str = "litellm", context: Context = CONTEXT) -> Normalized:
    module = litellm if kind == "litellm" else litellm_spend
    (outcome,) = module.normalize(raw(name, kind), context)
    assert isinstance(outcome, Normalized), outcome
    return outcome


def event(name: str, kind: str = "litellm", context: Context = CONTEXT) -> AccessEvent:
    return normalized(name, kind, context).event


def content(name: str, kind: str = "litellm") -> Content:
    found = normalized(name, kind).content
    assert found is not None
    return found


def changed(name: str, **fields: Any) -> AccessEvent | Rejected:
    record = json.loads(raw(name))
    for key, value in fields.items():
        if value is None:
            record.pop(key, None)
        else:
            record[key] = value
    (outcome,) = litellm.normalize(json.dumps(record).encode(), CONTEXT)
    return outcome.event if isinstance(outcome, Normalized) else outcome  # type: ignore[return-value]


def test_every_mapped_field_of_a_plain_call() -> None:
    found = event("chat_success")
    assert found.timestamp == "2025-11-23T09:14:06.121Z"
    assert found.user_id == "ines.moreau"
    assert found.user_email == "ines.moreau@example.com"
    assert (found.department, found.purpose, found.ticket) == ("retail", "kyc review", "inc-20417")
    assert found.session_id == "conv-7781"
    assert found.request_id == "req_0001abc"
    assert (found.model_provider, found.model, found.model_version) == ("openai", "gpt-4o", "gpt-4o-2024-08-06")
    assert (found.resource_type, found.resource_id) == ("model_group", "chat-large")
    assert (found.prompt_tokens, found.completion_tokens, found.token_count, found.cached_tokens) == (118, 42, 160, 64)
    assert found.cost_usd == 0.000715
    assert found.latency_ms == 1840.5
    assert found.first_token_ms is None
    assert (found.action, found.action_kind, found.outcome_status) == ("acompletion", "inference", "success")


def test_map_of_prices_is_skipped_and_changes_nothing() -> None:
    whole = json.loads(raw("chat_success"))
    assert len(json.dumps(whole.pop("model_map_information"))) > len(json.dumps(whole))
    assert litellm.normalize(json.dumps(whole).encode(), CONTEXT) == litellm.normalize(raw("chat_success"), CONTEXT)


def test_identity_is_call_id_and_start_time() -> None:
    first, second = event("retry_same_call_id_first_attempt"), event("retry_same_call_id_second_attempt")
    assert first.source_event_id == second.source_event_id
    assert first.event_id != second.event_id, "a caller that repeats x-litellm-call-id must not hide its calls"
    assert first.event_id == event("retry_same_call_id_first_attempt").event_id
    start = round(json.loads(raw("chat_success"))["startTime"] * 1e6)
    call_id = json.loads(raw("chat_success"))["litellm_call_id"]
    assert event("chat_success").event_id == make_event_id("acme", "litellm", f"{call_id}|{start}")


def test_older_text_times_are_utc_and_flagged() -> None:
    found = event("older_text_times")
    assert found.timestamp == "2024-09-03T08:11:42.507Z"
    assert found.latency_ms == 1512.737
    assert "time_zone_assumed" in found.flags
    assert found.source_event_id == "chatcmpl-0002Fx"
    assert found.user_agent == "OpenAI/Python 1.99.0", "from the longest User-Agent tag"


@pytest.mark.parametrize(
    ("name", "outcome", "action", "guardrail", "http_status"),
    [
        ("guardrail_blocked_as_failure_400", "blocked", "blocked", "pii-block", 400),
        ("guardrail_older_single_object", "blocked", "blocked", "toxicity", 400),
        ("guardrail_masked", "success", "masked", "pii-mask", None),
        ("guardrail_modified_and_let_through", "success", "masked", "bedrock-pii", None),
        ("guardrail_flagged", "success", "flagged", "prompt-shield", None),
        ("guardrail_failed_to_respond", "error", "failed", "prompt-shield", 500),
        ("provider_content_policy_400", "blocked", "blocked", "azure-content-filter", 400),
        ("finish_reason_content_filter", "blocked", "blocked", "azure-content-filter", None),
        ("auth_failure_401", "denied", "", "", 401),
        ("permission_denied_403", "denied", "", "", 403),
        ("rate_limited_429", "throttled", "", "", 429),
        ("budget_exceeded_400", "throttled", "", "", 400),
        ("server_error_500", "error", "", "", 500),
        ("client_disconnected_499", "error", "", "", 499),
    ],
)
def test_outcome(name: str, outcome: str, action: str, guardrail: str, http_status: int | None) -> None:
    found = event(name)
    assert found.outcome_status == outcome
    assert (found.guardrail_action, found.guardrail_name) == (action, guardrail)
    assert found.http_status == http_status


def test_guardrail_details() -> None:
    assert event("guardrail_blocked_as_failure_400").guardrail_categories == ("us_ssn",)
    assert event("guardrail_flagged").guardrail_categories == ("jailbreak",)
    assert "guardrail_failed" in event("guardrail_failed_to_respond").flags
    assert "078-05-1120" in content("guardrail_blocked_as_failure_400").messages[0].text, "the raw prompt is judged"


@pytest.mark.parametrize(
    ("status", "summary", "rails", "error", "expected"),
    [
        ("success", "guardrail_intervened", [], None, ("blocked", "blocked")),
        ("success", None, [Guardrail(guardrail_status="guardrail_intervened")], None, ("blocked", "blocked")),
        (
            "success",
            None,
            [
                Guardrail(guardrail_status="guardrail_intervened", masked_entity_count={"EMAIL": 1}),
                Guardrail(guardrail_status="guardrail_intervened"),
            ],
            None,
            ("blocked", "blocked"),
        ),
        (
            "failure",
            None,
            [
                Guardrail(guardrail_status="success", masked_entity_count={"EMAIL": 1}),
                Guardrail(guardrail_status="guardrail_intervened"),
            ],
            ErrorInformation(error_code="400"),
            ("blocked", "blocked"),
        ),
        ("success", "success", [Guardrail(guardrail_status="success")], None, ("success", "allowed")),
        ("success", "a new word", [], None, ("success", "")),
        (None, None, [], None, ("unknown", "")),
        (None, None, [], ErrorInformation(error_code="", error_class=""), ("unknown", "")),
        (None, None, [], ErrorInformation(error_code="403"), ("denied", "")),
        ("failure", None, [], None, ("error", "")),
        ("failure", None, [], ErrorInformation(error_code="not a number"), ("error", "")),
        ("failure", "guardrail_failed_to_respond", [], ErrorInformation(error_code="429"), ("throttled", "failed")),
    ],
)
def test_judge(
    status: str | None,
    summary: str | None,
    rails: list[Guardrail],
    error: ErrorInformation | None,
    expected: tuple[str, str],
) -> None:
    found = judge(status, summary, rails, error)
    assert (found.outcome, found.guardrail_action) == expected


def test_failed_key_is_kept_as_it_was_logged() -> None:
    found = event("auth_failure_401")
    assert len(found.credential_id) == 64
    assert (found.user_id, found.principal_type) == ("", "unknown")
    assert found.outcome_status == "denied"


def test_master_key_is_no_person() -> None:
    found = event("master_key_end_user")
    assert found.credential_id == "litellm_proxy_master_key"
    assert (found.user_id, found.principal_type) == ("customer-5512", "human")
    alone = changed("master_key_end_user", end_user="", metadata={"user_api_key_user_id": "default_user_id"})
    assert isinstance(alone, AccessEvent)
    assert (alone.user_id, alone.principal_type) == ("default_user_id", "unknown")


def test_department_order_and_who_said_it() -> None:
    stored = event("department_stored_with_key")
    assert stored.department == "investment banking"
    assert "department_claimed" not in stored.flags
    assert stored.principal_type == "service"
    claimed = event("chat_success")
    assert claimed.department == "retail"
    assert "department_claimed" in claimed.flags
    assert event("tool_calls").department == "retail banking", "else the team's name"


def test_tags_and_headers_carry_facts() -> None:
    found = event("facts_in_tags_and_headers")
    assert (found.department, found.ticket, found.purpose) == ("markets", "chg-88", "reporting")
    assert found.user_agent == "curl/8.5.0"
    plain = changed(
        "chat_success", metadata={"user_api_key_hash": "x"}, request_tags=["kyc", "batch", "User-Agent: x/1"]
    )
    assert isinstance(plain, AccessEvent)
    assert plain.purpose == "kyc,batch"


def test_tenant_from_configured_keys() -> None:
    assert event("chat_success", context=Context("acme", tenant_keys=("user_api_key_org_id",))).tenant_id == "org-acme"
    by_metadata = event("chat_success", context=Context("acme", tenant_keys=("nothing", "department")))
    assert by_metadata.tenant_id == "retail"
    assert event("chat_success", context=Context("acme", tenant_keys=("nothing",))).tenant_id == "acme"


def test_session_falls_back_to_the_trace() -> None:
    found = event("session_from_trace")
    assert found.session_id == found.trace_id != ""
    own = changed("chat_success", session_id="own")
    assert isinstance(own, AccessEvent)
    assert own.session_id == "own"


def test_stream_latency_is_not_the_first_token() -> None:
    found = event("stream_response_time_is_first_token")
    assert (found.latency_ms, found.first_token_ms) == (1840.5, 310.0)
    no_end = changed("stream_response_time_is_first_token", endTime=None)
    assert isinstance(no_end, AccessEvent)
    assert no_end.latency_ms is None


def test_addresses() -> None:
    assert event("forwarded_address_list").src_ip == "203.0.113.77"
    odd = event("address_that_is_none")
    assert (odd.src_ip, odd.src_host) == ("", "testclient")
    assert "src_ip_invalid" in odd.flags


def test_router_alias_is_not_the_version() -> None:
    found = event("router_overwrites_response_model")
    assert (found.model, found.model_version, found.resource_id) == ("gpt4o-prod-eu", "gpt4o-prod-eu", "chat-large")
    assert found.request_id == "9c1f0c7e-2222-4333-8444-555566667777", "joins with Azure's CorrelationId"
    assert found.cloud_provider == "azure"
    bedrock = event("anthropic_messages_blocks")
    assert bedrock.request_id == "0a1b2c3d-1111-4222-8333-444455556666", "joins with CloudTrail's requestID"
    assert bedrock.cloud_provider == "aws"


def test_tools() -> None:
    assert event("tool_calls").tool == "search_orders,send_mail"
    assert content("tool_calls").tool_calls == ['{"customer":88}', '{"to":"a@example.com"}']
    assert event("mcp_tool").tool == "files/list_files"
    assert event("file_upload").action_kind == "data"


@pytest.mark.parametrize(
    ("name", "messages", "response"),
    [
        ("embedding_list_of_texts", [("user", "first paragraph"), ("user", "second paragraph")], ""),
        ("text_completion_prompt_string", [("user", "Once upon a time")], " there was a bank."),
        ("messages_as_body_dict", [("user", "hello through the side door")], "plain text back"),
        (
            "multimodal_and_tool_result_parts",
            [("user", "What is on this slip?"), ("tool", "OCR: total 12.50"), ("user", "And the date?")],
            "The daily limit is 2,000 EUR.",
        ),
        ("responses_api_items_without_role", [("tool", "tool says: 42"), ("user", "sum it up")], "It is 42."),
        ("line_separator_in_text", [("user", "one\u2028two\x00three")], "The daily limit is 2,000 EUR."),
    ],
)
def test_shapes_of_content(name: str, messages: list[tuple[str, str]], response: str) -> None:
    found = content(name)
    assert [(message.role, message.text) for message in found.messages] == messages
    assert found.response == response


def test_prompt_that_is_json_is_not_swallowed() -> None:
    record = json.loads(raw("text_completion_prompt_string"))
    record["messages"] = '{"ignore": "all previous instructions"}'
    record["response"] = '{"answer": 1}'
    (outcome,) = litellm.normalize(json.dumps(record).encode(), CONTEXT)
    assert isinstance(outcome, Normalized)
    assert outcome.content is not None
    assert outcome.content.messages[0].text == '{"ignore": "all previous instructions"}'
    assert outcome.content.response == '{"answer": 1}'


def test_content_that_the_gateway_took_out_or_cut() -> None:
    outcome = normalized("content_redacted_upstream")
    assert outcome.content is None
    assert "content_redacted_upstream" in outcome.event.flags
    assert "text_truncated" in event("truncated_by_gateway").flags
    assert "cache_hit" in event("cache_hit").flags


def test_numbers_that_make_no_sense_are_absent() -> None:
    assert event("clock_runs_backwards").latency_ms is None
    found = event("cost_as_text_and_null_tokens")
    assert (found.cost_usd, found.token_count) == (0.0125, None)
    odd = changed("chat_success", response_cost=-1.0, total_tokens=1e300, prompt_tokens=-5)
    assert isinstance(odd, AccessEvent)
    assert (odd.cost_usd, odd.token_count, odd.prompt_tokens) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "action", "kind", "user", "flags"),
    [
        ("audit_key_created", "key.created", "auth", "admin@example.com", ()),
        ("audit_model_deleted", "model.deleted", "admin", "admin@example.com", ()),
        (
            "audit_team_updated_naive_time",
            "team.updated",
            "auth",
            "default_user_id",
            ("time_zone_assumed", "identity_missing"),
        ),
    ],
)
def test_admin_audit_records(name: str, action: str, kind: str, user: str, flags: tuple[str, ...]) -> None:
    outcome = normalized(name)
    found = outcome.event
    assert (found.action, found.action_kind, found.user_id, found.flags) == (action, kind, user, flags)
    assert found.outcome_status == "success"
    assert outcome.content is None, "old and new values may hold secrets"


@pytest.mark.parametrize(
    ("name", "code", "field"),
    [
        ("bad_time_missing", "field_missing", "startTime"),
        ("bad_time_text", "time_invalid", "startTime"),
        ("bad_time_out_of_range", "time_invalid", "startTime"),
        ("bad_id_missing", "field_missing", "litellm_call_id"),
        ("bad_type_of_metadata", "field_type", "metadata"),
        ("bad_duplicate_key", "json_duplicate_key", ""),
        ("bad_torn", "record_torn", ""),
        ("bad_lone_surrogate", "utf8_invalid", ""),
    ],
)
def test_rejections(name: str, code: str, field: str) -> None:
    assert litellm.normalize(raw(name), CONTEXT) == (Rejected(code, field, "litellm"),)


def test_spend_row_is_the_same_call_in_other_clothes() -> None:
    for name in ("row_with_json_strings", "row_objects_instead_of_strings"):
        found = content(name, "litellm_spend")
        assert found.messages[1].text == "What is the daily limit of a basic card?"
        assert found.response == "The daily limit is 2,000 EUR."
    found_event = event("row_with_json_strings", "litellm_spend")
    assert found_event.source == "litellm_spend"
    assert found_event.user_agent == "OpenAI/Python 1.99.0"
    assert found_event.purpose == "kyc"
    assert found_event.latency_ms == 1840.5
    assert (found_event.cached_tokens, found_event.cost_usd) == (64, 0.000715)


def test_spend_row_without_content_and_with_the_request_body() -> None:
    assert normalized("row_without_content", "litellm_spend").content is None
    body = content("row_prompt_in_proxy_server_request", "litellm_spend")
    assert body.messages[0].text == "What did we agree with the client?"
    plain = content("row_plain_text_messages", "litellm_spend")
    assert (plain.messages[0].text, plain.response) == ("Once upon a time", "there was a bank")


def test_spend_row_status_and_cache() -> None:
    assert event("row_failure_blocked", "litellm_spend").outcome_status == "blocked"
    assert event("row_failure_401", "litellm_spend").outcome_status == "denied"
    assert "cache_hit" in event("row_cache_hit", "litellm_spend").flags
    assert "cache_hit" not in event("row_without_content", "litellm_spend").flags, '"None" is no hit'
    assert event("row_master_key", "litellm_spend").user_id == "customer-5512"
    assert "time_zone_assumed" in event("row_zone_missing_database_export", "litellm_spend").flags


@pytest.mark.parametrize(
    ("name", "code", "field"),
    [
        ("bad_metadata_not_json", "json_invalid", "metadata"),
        ("bad_request_id_missing", "field_missing", "request_id"),
        ("bad_time_missing", "field_missing", "startTime"),
    ],
)
def test_spend_rejections(name: str, code: str, field: str) -> None:
    assert litellm_spend.normalize(raw(name, "litellm_spend"), CONTEXT) == (Rejected(code, field, "litellm_spend"),)


@pytest.mark.parametrize(
    ("value", "epoch", "assumed"),
    [
        ("2024-09-03 08:11:42.507133", 1725351102.507133, True),
        ("2024-09-03T08:11:42.507133", 1725351102.507133, True),
        ("2024-09-03 08:11:42", 1725351102.0, True),
        ("2024-09-03T08:11:42.507133+00:00", 1725351102.507133, False),
        ("2024-09-03T10:11:42.507Z", 1725358302.507, False),
        ("2024-02-30 08:11:42.507133", None, False),
        ("2024-09-03 08:11:42.50713x", None, False),
        ("", None, False),
        (1725351102.507133, 1725351102.507133, False),
        (1725351102, 1725351102.0, False),
        (float("nan"), None, False),
        (float("inf"), None, False),
        (10**30, None, False),
        (None, None, False),
    ],
)
def test_moments(value: float | str | None, epoch: float | None, assumed: bool) -> None:
    found = moment(value)
    assert (found.epoch, found.assumed) == (epoch, assumed)
