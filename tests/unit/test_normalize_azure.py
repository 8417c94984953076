"""Azure OpenAI and API Management: what the golden files show one by one, here as rules."""

import json
from pathlib import Path

import pytest

from aitrail.normalize import apim, azure_openai
from aitrail.normalize.azure_common import azure_time, latency_of, operation_of, resource_of, result_of
from aitrail.normalize.openai_chat import (
    Guardrail,
    Usage,
    integer,
    read_filter,
    read_response,
    read_usage,
    request_messages,
)
from aitrail.normalize.outcome import Context, Fragment, Message, Normalized, Rejected

FIXTURES = Path(__file__).parent.parent / "fixtures"
CONTEXT = Context(tenant_id="acme")
NORMALIZE = {"azure_openai": azure_openai.normalize, "apim": apim.normalize}


def outcome(kind, name, context=CONTEXT, **changes):
    raw = (FIXTURES / kind / f"{name}.json").read_bytes()
    if changes:
        record = json.loads(raw)
        record.update(changes)
        raw = json.dumps(record).encode()
    (found,) = NORMALIZE[kind](raw, context)
    return found


def event(kind, name, context=CONTEXT, **changes):
    return outcome(kind, name, context, **changes).event


# --- operations


@pytest.mark.parametrize(
    ("name", "kind", "read_only"),
    [
        ("chatcompletions_create", "inference", False),
        ("embeddings_create", "inference", False),
        ("create_run", "inference", False),
        ("listkey", "auth", True),
        ("listkeys", "auth", True),
        ("microsoft.cognitiveservices/accounts/listkeys/action", "auth", True),
        ("microsoft.cognitiveservices/accounts/regeneratekey/action", "auth", False),
        ("microsoft.authorization/roleassignments/write", "auth", False),
        ("deployments_list", "admin", True),
        ("microsoft.cognitiveservices/accounts/deployments/delete", "admin", False),
        ("microsoft.cognitiveservices/accounts/raipolicies/write", "guardrail", False),
        ("microsoft.cognitiveservices/accounts/raipolicies/read", "admin", True),
        ("microsoft.cognitiveservices/accounts/raiblocklists/delete", "guardrail", False),
        ("microsoft.insights/diagnosticsettings/delete", "guardrail", False),
        ("microsoft.insights/diagnosticsettings/read", "admin", True),
        ("finetuning_files_upload", "data", False),
        ("files_list", "data", True),
        ("finetuning_jobs_create", "weights", False),
        ("create_thread", "data", False),
        ("batch_get", "data", True),
        ("get_run", "admin", True),
        ("something_nobody_knows", "admin", None),
        ("", "admin", None),
    ],
)
def test_operation_table(name, kind, read_only):
    found = operation_of(name)
    assert (found.kind, found.read_only) == (kind, read_only)


@pytest.mark.parametrize(
    ("signature", "result_type", "expected"),
    [
        ("200", "", (200, "success")),
        ("204", "", (204, "success")),
        ("400", "", (400, "error")),
        ("401", "", (401, "denied")),
        ("403", "", (403, "denied")),
        ("404", "", (404, "error")),
        ("429", "", (429, "throttled")),
        ("500", "", (500, "error")),
        ("503", "", (503, "error")),
        ("302", "", (302, "unknown")),
        ("", "", (None, "unknown")),
        ("0", "", (None, "unknown")),
        ("x", "", (None, "unknown")),
        ("Failed.Forbidden", "Failure", (403, "denied")),
        ("Succeeded.OK", "Success", (200, "success")),
        ("Started.", "Start", (None, "unknown")),
        ("", "Succeeded", (None, "success")),
        ("", "Failed", (None, "error")),
    ],
)
def test_outcome_table(signature, result_type, expected):
    assert result_of(signature, result_type) == expected


# --- times, latency, ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23T09:14:05.1200000Z", ("2026-11-23T09:14:05.120Z", "")),
        ("2026-11-23T09:14:05.1239000Z", ("2026-11-23T09:14:05.124Z", "")),
        ("2026-11-23T09:14:05.12Z", ("2026-11-23T09:14:05.120Z", "")),
        ("2026-11-23T09:14:05Z", ("2026-11-23T09:14:05.000Z", "")),
        ("2026-11-23T10:14:05.1200000+01:00", ("2026-11-23T09:14:05.120Z", "")),
        ("2026-11-23T09:14:05.1200000", ("", "time_no_zone")),
        ("2026-02-30T09:14:05.1200000Z", ("", "time_invalid")),
        ("2026-11-23T09:14:60.1200000Z", ("", "time_invalid")),
        ("1899-11-23T09:14:05.1200000Z", ("", "time_invalid")),
        ("2026-11-23T09:14:05+1200000Z", ("", "time_invalid")),
        ("1200000Z", ("", "time_invalid")),
        ("", ("", "time_invalid")),
    ],
)
def test_azure_time(text, expected):
    assert azure_time(text) == expected


TICKS = 638_999_864_451_200_000


@pytest.mark.parametrize(
    ("start", "end", "duration", "expected"),
    [
        (TICKS, TICKS + 10_212_370, 1021, (1021.237, False)),
        (TICKS, TICKS + 10_212_370, -1021, (1021.237, False)),
        (str(TICKS), str(TICKS + 10_000), None, (1.0, False)),
        (TICKS + 5, TICKS, 1021, (1021.0, False)),
        (0, 0, "132", (132.0, False)),
        (1, 10_001, 7, (7.0, False)),  # ticks near year 1 are no time
        (TICKS, TICKS + 10_000 * 86_400_001, -5, (None, True)),
        (None, None, -5, (None, True)),
        (None, None, "", (None, False)),
        (None, None, "NaN", (None, False)),
        (None, None, None, (None, False)),
    ],
)
def test_latency(start, end, duration, expected):
    assert latency_of(start, end, duration) == expected


def test_resource_id_in_any_case_and_with_extension():
    parts = "/subscriptions/S/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/A"
    for text in (parts, parts.upper()):
        found = resource_of(text)
        assert (found.subscription, found.provider, found.name) == ("s", "microsoft.cognitiveservices", "a")
    assert resource_of(f"{parts}/providers/microsoft.insights/diagnosticSettings/d").name == "d"
    assert resource_of("nonsense").subscription == ""


# --- azure_openai


def test_tenant_is_the_region_not_the_tenant():
    found = event("azure_openai", "rr_token_row", location=None)
    assert (found.tenant_id, found.cloud_region) == ("acme", "eastus")


def test_masked_address_is_a_host_and_flagged():
    found = event("azure_openai", "rr_token_row")
    assert (found.src_ip, found.src_host) == ("", "203.0.113.***")
    assert "src_ip_masked" in found.flags
    found = event("azure_openai", "rr_token_row", callerIpAddress="035.249.253.232")
    assert (found.src_ip, found.flags) == ("", ("src_ip_invalid",))
    assert event("azure_openai", "rr_token_row", callerIpAddress="[2001:db8::1]:443").src_ip == "2001:db8::1"


def test_both_forms_of_a_token_row_are_the_same_part():
    record, row = (outcome("azure_openai", name) for name in ("rr_token_row", "diagnostics_table_rr_token_row"))
    assert record == row


def test_usage_shares_request_id_but_is_another_event():
    usage, row = event("azure_openai", "usage_token_arrays"), event("azure_openai", "rr_token_row")
    assert usage.request_id == row.request_id != ""
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.token_count) == (
        1120,
        896,
        190,
        1310,
    )
    assert usage.event_id == event("azure_openai", "diagnostics_table_usage").event_id
    assert usage.event_id != ""


def test_scalar_and_longer_arrays_are_read_too():
    properties = {"promptTokens": 7, "generatedTokens": [1, 2, None]}
    found = event("azure_openai", "usage_token_arrays", properties=properties)
    assert (found.prompt_tokens, found.completion_tokens, found.token_count) == (7, 3, 10)


def test_empty_object_id_names_nobody():
    found = event("azure_openai", "rr_api_key_no_object_id")
    assert found.user_id == ""
    assert "identity_missing" in found.flags


def test_audit_identity_ignores_spacing_and_key_order_but_nothing_else():
    raw = (FIXTURES / "azure_openai" / "audit_list_key.json").read_bytes()
    record = json.loads(raw)
    turned = json.dumps(dict(reversed(record.items())), indent=1).encode()
    ids = {azure_openai.normalize(text, CONTEXT)[0].event.event_id for text in (raw, turned)}
    assert len(ids) == 1
    other = event("azure_openai", "audit_list_key", AssetIdentity="another").event_id
    assert other not in ids


def test_tenants_do_not_share_ids():
    one, two = (event("azure_openai", "audit_list_key", Context(tenant_id=name)) for name in ("a", "b"))
    assert one.event_id != two.event_id


def test_unknown_category_is_rejected_with_the_field():
    assert outcome("azure_openai", "rr_token_row", category="Mystery") == Rejected(
        "type_unknown", "category", "azure_openai"
    )


def test_enumerations_and_identifiers_are_lower_case():
    for name in ("administrative_deployment_write", "audit_list_key", "rr_create_thread_is_data"):
        found = event("azure_openai", name)
        for field in ("user_id", "user_name", "user_email", "action", "service", "resource_type", "cloud_account"):
            assert getattr(found, field) == getattr(found, field).lower(), (name, field)


# --- apim


def test_stamped_caller_wins_over_what_the_client_says():
    properties = json.loads((FIXTURES / "apim" / "gateway_identity.json").read_bytes())["properties"]
    properties["requestHeaders"]["x-caller-upn"] = "mallory@example.com"
    found = event("apim", "gateway_identity", properties=properties)
    assert found.user_id == "ines.moreau@example.com"
    assert found.flags == ()
    del properties["backendRequestHeaders"]["x-caller-upn"]
    found = event("apim", "gateway_identity", properties=properties)
    assert found.user_id == "mallory@example.com"
    assert found.flags == ("caller_header_unverified",)


def test_request_id_joins_to_azure_openai():
    assert event("apim", "gateway_identity").request_id == event("azure_openai", "rr_token_row").request_id


def test_tenant_header_counts_only_when_configured():
    properties = json.loads((FIXTURES / "apim" / "gateway_identity.json").read_bytes())["properties"]
    properties["backendRequestHeaders"]["x-caller-tenant"] = "Bank"
    assert event("apim", "gateway_identity", properties=properties).tenant_id == "acme"
    configured = Context(tenant_id="acme", tenant_keys=("tenant",))
    assert event("apim", "gateway_identity", configured, properties=properties).tenant_id == "bank"


def test_context_keys_name_further_headers():
    properties = json.loads((FIXTURES / "apim" / "gateway_identity.json").read_bytes())["properties"]
    properties["backendRequestHeaders"]["X-Cost-Center"] = "KYC"
    context = Context(tenant_id="acme", purpose_keys=("cost_center",))
    assert event("apim", "gateway_identity", context, properties=properties).purpose == "kyc"


def test_filter_refusal_is_blocked_not_error():
    found = event("apim", "gateway_content_filter_blocked")
    assert (found.outcome_status, found.http_status) == ("blocked", 400)
    assert (found.guardrail_action, found.guardrail_name) == ("blocked", "azure-content-filter")
    assert set(found.guardrail_categories) == {"jailbreak", "custom_blocklists"}
    assert found.error_code == "responsibleaipolicyviolation"


def test_seen_but_let_through_is_flagged():
    found = event("apim", "gateway_filter_annotated_only")
    assert (found.outcome_status, found.guardrail_action, found.guardrail_categories) == (
        "success",
        "flagged",
        ("jailbreak",),
    )


def test_stream_and_whole_answer_say_the_same():
    whole, stream = outcome("apim", "gateway_bodies"), outcome("apim", "gateway_bodies_stream")
    assert isinstance(whole, Fragment)
    assert whole.content == stream.content
    assert whole.event.token_count == stream.event.token_count == 40


def test_cut_bodies_are_kept_and_flagged():
    found = outcome("apim", "gateway_bodies_cut")
    assert found.event.flags == ("text_truncated",)
    assert found.content.messages[0].role == "user"
    assert "gpt-4o-retail" in found.content.messages[0].text
    assert found.content.response != ""


def test_other_apis_are_not_ai_but_a_chat_body_is():
    assert outcome("apim", "gateway_other_api").code == "not_ai_related"
    properties = {"url": "https://x.example.com/assist", "requestBody": '{"messages":[{"role":"user","content":"hi"}]}'}
    found = outcome("apim", "gateway_other_api", properties=properties)
    assert isinstance(found, Fragment)
    assert found.content.messages == [Message("user", "hi")]
    assert outcome("apim", "gateway_other_api", properties={}).code == "field_missing"


@pytest.mark.parametrize(
    "path",
    ["/openai/deployments/m/chat/completions", "/v1/embeddings?x=1", "/openai/v1/responses", "/v1/messages",
     "/models/chat/completions", "/openai/deployments/m/completions"],
)  # fmt: skip
def test_llm_paths_wait_for_the_llm_log(path):
    properties = {"url": f"https://acme-apim.azure-api.net{path}", "responseCode": 200}
    assert isinstance(outcome("apim", "gateway_other_api", properties=properties), Fragment)


def test_path_counts_not_the_query_or_the_host():
    for url in ("https://x.example.com/orders?next=/chat/completions", "https://responses.example.com/orders"):
        assert outcome("apim", "gateway_other_api", properties={"url": url}).code == "not_ai_related"


def test_models_list_is_an_event_of_its_own():
    found = outcome("apim", "gateway_models_list")
    assert isinstance(found, Normalized)
    assert found.event.action_kind == "admin"


def test_pieces_carry_zeros_that_are_no_counts():
    assert event("apim", "llm_request_piece_1").token_count is None
    assert event("apim", "llm_tokens_row").token_count == 40


# --- openai_chat


def test_roles_stay_apart_in_every_shape():
    body = {
        "instructions": "rules",
        "input": [
            {"role": "developer", "content": "d"},
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "q"}, {"type": "input_image", "image_url": "u"}],
            },
            {"type": "function_call", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "output": "result"},
        ],
    }
    assert request_messages(body) == [
        Message("system", "rules"),
        Message("system", "d"),
        Message("user", "q"),
        Message("assistant", "{}"),
        Message("tool", "result"),
    ]
    assert request_messages({"prompt": ["a", "b"]}) == [Message("user", "a"), Message("user", "b")]
    assert request_messages({"input": [[1, 2], [3]]}) == []
    assert request_messages('{"messages":[{"role":"alien","content":"x"}]}') == [Message("user", "x")]
    assert request_messages({"messages": [{"role": ["user"], "type": {}, "content": "x"}]}) == [Message("user", "x")]


def test_anthropic_tool_result_inside_user_message_is_tool_text():
    content = [{"type": "text", "text": "q"}, {"type": "tool_result", "content": [{"type": "text", "text": "page"}]}]
    found = request_messages({"system": "s", "messages": [{"role": "user", "content": content}]})
    assert found == [Message("system", "s"), Message("tool", "page"), Message("user", "q")]


def test_usage_names():
    assert read_usage({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}) == Usage(3, 2, 5, None)
    details = {"input_tokens": 3, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}
    assert read_usage(details) == Usage(3, 2, 5, 1)
    assert read_usage({"input_tokens": 3, "cache_read_input_tokens": 7, "output_tokens": 1}) == Usage(10, 1, 11, 7)
    assert read_usage({"prompt_tokens": True, "completion_tokens": -1}) == Usage()
    assert read_usage([]) == Usage()


def test_filter_forms():
    assert read_filter({"hate": {"filtered": False, "severity": "safe"}}) == Guardrail("allowed")
    assert read_filter({"hate": {"filtered": False, "severity": "high"}}) == Guardrail("flagged", ("hate",))
    assert read_filter({"error": {"code": "content_filter_error"}}) == Guardrail("failed")
    assert read_filter({"custom_blocklists": [{"filtered": True, "id": "x"}]}) == Guardrail(
        "blocked", ("custom_blocklists",)
    )
    assert read_filter(None) == read_filter({}) == Guardrail()


def test_response_tools_choices_and_bare_messages():
    calls = [{"function": {"name": "send_mail", "arguments": '{"to":"x"}'}}]
    choices = [{"message": {"content": None, "tool_calls": calls}}, {"message": {"content": "two"}}]
    found = read_response({"choices": choices})
    assert (found.tools, found.tool_calls) == (["send_mail"], ['{"to":"x"}'])
    found = read_response({"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]})
    assert found.text == "a\nb"
    assert read_response([{"role": "assistant", "content": "bare"}]).text == "bare"
    assert not read_response("no json at all").known
    assert read_response(None).text == ""


def test_streamed_tool_call_is_one_call():
    chunks = [
        {
            "choices": [
                {"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}}
            ]
        },
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}}]},
    ]
    found = read_response(chunks)
    assert (found.tools, found.tool_calls) == (["f"], ['{"a":1}'])


@pytest.mark.parametrize(("value", "expected"), [(3, 3), ("3", 3), (3.0, 3), (-1, None), (True, None), ("x", None)])
def test_integer(value, expected):
    assert integer(value) == expected
