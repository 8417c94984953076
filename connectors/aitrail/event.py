"""``AccessEvent``: the one schema of aitrail, and at the same time its field catalog.

Every field carries in its ``msgspec.Meta`` a description, a unit where it has one, an example, and its name in OCSF 1.8
(API Activity 6003), ECS 9.5, OpenTelemetry GenAI, Splunk CIM, ASIM AgentEvent and the Sentinel table. Encoders, index
templates, tables, documentation and linters read it from here (see ``aitrail.schema``); no list of fields exists twice.

Canonical form, so that every engine gives the same answer to the same rule:

* a missing string is absent on the wire and means the same as an empty one; numbers and booleans may be null;
* fields marked ``lower`` are lower-case, always;
* ``timestamp`` and ``ingested_at`` are UTC with exactly three decimals: ``2026-11-23T09:14:05.120Z``;
* ``src_ip`` parses as an address or is empty (what did not parse is in ``src_host``);
* ``outcome_status`` never guesses: what cannot be told is ``unknown``.
"""

import hashlib
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args

import msgspec

SCHEMA_VERSION = "1.0"

PrincipalType = Literal["human", "service", "agent", "unknown"]
ActionKind = Literal["inference", "admin", "data", "weights", "auth", "guardrail"]
OutcomeStatus = Literal["success", "blocked", "denied", "throttled", "error", "unknown"]
InjectionTier = Literal["", "suspicious", "high"]
Classification = Literal[
    "", "clean", "prompt_injection", "jailbreak", "prompt_extraction", "secret", "pii", "financial", "mixed"
]
ContentMode = Literal["none", "hash", "redacted", "full", "sealed"]


def _f(
    description: str,
    example: Any,
    *,
    unit: str = "",
    lower: bool = False,
    group: str = "",
    form: str = "",
    **names: str,
) -> Any:
    """Describe one field; ``names`` are its names elsewhere (ocsf, ecs, otel, cim, asim, sentinel).

    ``ocsf_exact`` and ``ecs_exact`` name the place of the unchanged value where the standard's own field holds a
    translated one (an enumeration number, nanoseconds); rules compare against that place. ``form`` says what a string
    is: ``time``, ``ip``, ``text`` (free text, searched by words); empty: a keyword.
    """
    extra: dict[str, Any] = {"unit": unit, "lower": lower, "group": group, "form": form, "names": names}
    return msgspec.Meta(description=description, examples=[example], extra=extra)


class AccessEvent(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One access to an AI system: who, what, when, from where, why, what was asked, what came back, at what cost."""

    # --- the record itself
    event_id: Annotated[str, _f(
        "Identity of the event: 32 hex digits, a hash of tenant, source and the id that the source gave it. "
        "Reading the same record twice gives the same value; delivery is at least once under this id.",
        "5f0c6a0e9d1b4c2f8a7e3d2c1b0a9f8e", group="record", ocsf="metadata.uid", ecs="event.id", otel="",
        cim="signature_id", asim="EventUid", sentinel="EventUid")]
    timestamp: Annotated[str, _f(
        "When the access happened, by the source's clock. UTC, RFC 3339, milliseconds.", "2026-11-23T09:14:05.120Z",
        group="record", form="time", ocsf="time", ecs="@timestamp", otel="startTimeUnixNano", cim="_time",
        asim="EventStartTime", sentinel="EventTime")]
    tenant_id: Annotated[str, _f(
        "The organisation or business unit that owns the data; keys and content mode are set per tenant.", "acme",
        lower=True, group="record", ocsf="metadata.tenant_uid", ecs="organization.id", cim="vendor_account",
        asim="ActorUserScopeId", sentinel="AITenantId")]
    source: Annotated[str, _f(
        "The record type that this event was made from (the choices of `aitrail collect --type`).", "cloudtrail",
        lower=True, group="record", ocsf="metadata.log_name", ecs="event.dataset", otel="otel.scope.name",
        cim="vendor_product", asim="EventProduct")]
    source_event_id: Annotated[str, _f(
        "The id that the source itself gave the record, unchanged.", "b7d1a7b0-6f3e-4c3a-9d1e-2f7d6c5b4a39",
        group="record", ocsf="metadata.original_event_uid", ecs="ai_audit.source.event_id",
        asim="EventOriginalUid")] = ""
    source_ref: Annotated[str, _f(
        "Where the raw record is: object, byte offset in its decompressed text and record number.",
        "s3/AWSLogs/1/CloudTrail/x.json.gz#offset=1204&record=3", group="record", ocsf="unmapped.source_ref",
        ecs="ai_audit.source.ref", asim="AdditionalFields")] = ""
    ingested_at: Annotated[str, _f(
        "When aitrail read the record. UTC, RFC 3339, milliseconds.", "2026-11-23T09:19:44.002Z", group="record",
        form="time", ocsf="metadata.logged_time", ecs="event.ingested", otel="observedTimeUnixNano", cim="_indextime",
        asim="AdditionalFields")] = ""
    related_ids: Annotated[tuple[str, ...], _f(
        "Ids of records that belong to the same action: CloudTrail sharedEventID, the record an addendum corrects.",
        ["0c1d5f9e-0000-4000-8000-000000000001"], group="record", ocsf="unmapped.related_ids",
        ecs="ai_audit.related_ids", asim="AdditionalFields")] = ()
    flags: Annotated[tuple[str, ...], _f(
        "What the reader should know about this record's quality, as codes: time_zone_assumed, src_ip_invalid, "
        "identity_missing, late_part, text_truncated, body_offloaded, metadata_only, low_confidence_join, "
        "time_ahead (of the collector's clock) ...",
        ["identity_missing"], lower=True, group="record", ocsf="unmapped.flags", ecs="ai_audit.flags",
        asim="AdditionalFields")] = ()

    # --- who
    principal_type: Annotated[PrincipalType, _f(
        "Whether a person, a service or an agent acted.", "human", lower=True, group="who", ocsf="actor.user.type_id",
        ocsf_exact="unmapped.principal_type", ecs="ai_audit.principal.type", cim="user_type",
        asim="AdditionalFields")] = "unknown"
    user_id: Annotated[str, _f(
        "Who acted, as precisely as the record says: the person behind a role where it is known.", "ines.moreau",
        lower=True, group="who", ocsf="actor.user.uid", ecs="user.id", otel="user.id", cim="user",
        asim="ActorUserId")] = ""
    user_name: Annotated[str, _f(
        "A name for display.", "ines moreau", lower=True, group="who", ocsf="actor.user.name", ecs="user.name",
        otel="user.name", cim="user_name", asim="ActorUsername")] = ""
    user_email: Annotated[str, _f(
        "E-mail address of the person.", "ines.moreau@example.com", lower=True, group="who",
        ocsf="actor.user.email_addr", ecs="user.email", otel="user.email", cim="user_email",
        asim="ActorUserAdditionalIds")] = ""
    role: Annotated[str, _f(
        "The role that was used (ARN or name), in the provider's spelling.", "arn:aws:iam::111122223333:role/Analyst",
        group="who", ocsf="actor.user.groups[].uid", ecs="user.roles", cim="user_role", asim="AdditionalFields")] = ""
    session_issuer: Annotated[str, _f(
        "What issued the session: ARN of the assumed role or identity provider, in the provider's spelling.",
        "arn:aws:iam::111122223333:role/Analyst", group="who", ocsf="actor.session.issuer",
        ecs="aws.cloudtrail.user_identity.session_context.session_issuer.arn", asim="AdditionalFields")] = ""
    credential_id: Annotated[str, _f(
        "Id of the key or token that was used (never the secret itself): access key id, gateway key hash or alias.",
        "AKIAIOSFODNN7EXAMPLE", group="who", ocsf="actor.session.credential_uid",
        ecs="aws.cloudtrail.user_identity.access_key_id", asim="AdditionalFields")] = ""
    mfa: Annotated[bool | None, _f(
        "Whether the session was opened with a second factor; null when the record does not say.", True, group="who",
        ocsf="actor.session.is_mfa", ecs="ai_audit.mfa", asim="AdditionalFields")] = None
    department: Annotated[str, _f(
        "Department or team of the person or application, from the record or from the directory file.", "retail",
        lower=True, group="who", ocsf="actor.user.groups[].name", ecs="user.group.name", cim="user_group",
        asim="AdditionalFields")] = ""
    purpose: Annotated[str, _f(
        "Stated purpose of use, when the caller sent one.", "kyc review", lower=True, group="who",
        ocsf="metadata.labels[]", ocsf_exact="unmapped.purpose", ecs="labels.purpose", asim="AdditionalFields")] = ""
    ticket: Annotated[str, _f(
        "Ticket or case that the caller named.", "inc-20417", lower=True, group="who", ocsf="metadata.labels[]",
        ocsf_exact="unmapped.ticket", ecs="labels.ticket", cim="ticket_id", asim="AdditionalFields")] = ""

    # --- from where
    src_ip: Annotated[str, _f(
        "Caller's IP address (v4 or v6); empty when the record holds none that parses.", "203.0.113.9", lower=True,
        group="where", form="ip", ocsf="src_endpoint.ip", ecs="source.ip", otel="client.address", cim="src",
        asim="SrcIpAddr")] = ""
    src_host: Annotated[str, _f(
        "Caller's host or service name, or the address text that did not parse.", "sagemaker.amazonaws.com",
        lower=True, group="where", ocsf="src_endpoint.hostname", ecs="source.address", cim="src_host",
        asim="SrcFQDN")] = ""
    user_agent: Annotated[str, _f(
        "Client software as it names itself.", "Boto3/1.35 md/Botocore", group="where", ocsf="http_request.user_agent",
        ecs="user_agent.original", otel="user_agent.original", cim="user_agent", asim="AdditionalFields")] = ""
    app: Annotated[str, _f(
        "Application, gateway route or API product that the call came through.", "retail-bot", lower=True,
        group="where", ocsf="actor.app_name", ecs="service.name", otel="service.name", cim="app",
        asim="ActingAppName")] = ""
    session_id: Annotated[str, _f(
        "Conversation or session that the call belongs to.", "conv-7781", group="where", ocsf="message_context.uid",
        ecs="gen_ai.conversation.id", otel="gen_ai.conversation.id", cim="session_id", asim="EventSessionId")] = ""
    request_id: Annotated[str, _f(
        "The provider's request id: the key that joins records of different logs.", "6a9c-req", group="where",
        ocsf="api.request.uid", ecs="http.request.id", otel="aws.request_id", asim="EventRequestId")] = ""
    trace_id: Annotated[str, _f(
        "Distributed trace that the call belongs to.", "4bf92f3577b34da6a3ce929d0e0e4736", lower=True, group="where",
        ocsf="trace.uid", ecs="trace.id", otel="traceId", asim="AdditionalFields")] = ""

    # --- what
    action: Annotated[str, _f(
        "The operation, lower-case: CloudTrail eventName, Azure operationName, the gateway's call type.",
        "invokemodel", lower=True, group="what", ocsf="api.operation", ecs="event.action",
        otel="gen_ai.operation.name", cim="action", asim="EventOriginalType")] = ""
    action_kind: Annotated[ActionKind | Literal[""], _f(
        "What kind of access this is: inference, admin (settings and deployments), data (training data, knowledge "
        "bases), weights (model artefacts), auth (keys and sessions), guardrail (safety settings and logging).",
        "inference", lower=True, group="what", ocsf="unmapped.action_kind", ecs="ai_audit.action.kind",
        cim="object_category", asim="EventType")] = ""
    service: Annotated[str, _f(
        "The service that was called.", "bedrock.amazonaws.com", lower=True, group="what", ocsf="api.service.name",
        ecs="event.provider", cim="dest", asim="EventVendor")] = ""
    read_only: Annotated[bool | None, _f(
        "Whether the operation cannot change anything; null when the record does not say.", False, group="what",
        ocsf="activity_id", ocsf_exact="unmapped.read_only", ecs="ai_audit.action.read_only",
        asim="AdditionalFields")] = None
    resource_type: Annotated[str, _f(
        "Kind of the resource that was touched.", "endpoint", lower=True, group="what", ocsf="resources[].type",
        ecs="ai_audit.resource.type", cim="object_category", asim="AdditionalFields")] = ""
    resource_id: Annotated[str, _f(
        "The resource: ARN, Azure resource id, s3://bucket/key or name, in the provider's spelling.",
        "arn:aws:sagemaker:eu-west-1:111122223333:endpoint/fraud-v3", group="what", ocsf="resources[].uid",
        ecs="ai_audit.resource.id", otel="gen_ai.data_source.id", cim="object_id", asim="TargetAgentId")] = ""
    passed_role: Annotated[str, _f(
        "Execution role that the caller handed to the service (iam:PassRole), in the provider's spelling.",
        "arn:aws:iam::111122223333:role/TrainingExec", group="what", ocsf="unmapped.passed_role",
        ecs="ai_audit.passed_role", asim="AdditionalFields")] = ""
    destination_uri: Annotated[str, _f(
        "Where the operation sends data: capture, output or log destination, copy target.", "s3://acme-capture/prod",
        group="what", ocsf="unmapped.destination_uri", ecs="ai_audit.destination.uri", cim="object_path",
        asim="AdditionalFields")] = ""
    target_account: Annotated[str, _f(
        "Another account or principal that the operation gives access to, or whose resource is used.", "999988887777",
        group="what", ocsf="unmapped.target_account", ecs="ai_audit.target.account", asim="AdditionalFields")] = ""
    cloud_provider: Annotated[str, _f(
        "aws, azure, gcp or empty.", "aws", lower=True, group="what", ocsf="cloud.provider", ecs="cloud.provider",
        otel="cloud.provider", asim="AdditionalFields")] = ""
    cloud_account: Annotated[str, _f(
        "Account or subscription.", "111122223333", lower=True, group="what", ocsf="cloud.account.uid",
        ecs="cloud.account.id", otel="cloud.account.id", cim="vendor_account", asim="AdditionalFields")] = ""
    cloud_region: Annotated[str, _f(
        "Region in which the call was made.", "eu-west-1", lower=True, group="what", ocsf="cloud.region",
        ecs="cloud.region", otel="cloud.region", cim="vendor_region", asim="AdditionalFields")] = ""
    inference_region: Annotated[str, _f(
        "Region in which the model ran, when it is not the one that was called (cross-Region inference).", "us-west-2",
        lower=True, group="what", ocsf="unmapped.inference_region", ecs="ai_audit.inference.region",
        asim="AdditionalFields")] = ""

    # --- which model
    model_provider: Annotated[str, _f(
        "Who made or serves the model.", "anthropic", lower=True, group="model", ocsf="ai_model.ai_provider",
        ecs="gen_ai.provider.name", otel="gen_ai.provider.name", cim="vendor_product_id",
        asim="ModelProviderName")] = ""
    model: Annotated[str, _f(
        "The model, endpoint or deployment that was used.", "anthropic.claude-sonnet-4", lower=True, group="model",
        ocsf="ai_model.name", ecs="gen_ai.request.model", otel="gen_ai.request.model", cim="dest_name",
        asim="ModelName")] = ""
    model_version: Annotated[str, _f(
        "Version or exact model that answered.", "20250514-v1:0", lower=True, group="model", ocsf="ai_model.version",
        ecs="gen_ai.response.model", otel="gen_ai.response.model", cim="object_attrs", asim="AdditionalFields")] = ""
    agent: Annotated[str, _f(
        "Agent that acted or was called.", "claims-agent", lower=True, group="model", ocsf="unmapped.agent",
        ecs="gen_ai.agent.name", otel="gen_ai.agent.name", cim="app", asim="SrcAgentName")] = ""
    tool: Annotated[str, _f(
        "Tools that were called in this turn, comma-separated in order.", "search_orders,send_mail", lower=True,
        group="model", ocsf="unmapped.tool", ecs="gen_ai.tool.name", otel="gen_ai.tool.name", cim="object",
        asim="ToolName")] = ""

    # --- content, as far as the content mode allows
    content_mode: Annotated[ContentMode | Literal[""], _f(
        "How content was treated: none, hash, redacted, full or sealed; empty when the record holds none.", "redacted",
        lower=True, group="content", ocsf="unmapped.content_mode", ecs="ai_audit.content.mode",
        asim="AdditionalFields")] = ""
    prompt_text: Annotated[str, _f(
        "What was asked in this turn: user and tool text after the last answer; masked, sealed or absent by mode.",
        "What is the limit on card [card]?", group="content", form="text", ocsf="unmapped.prompt_text",
        ecs="ai_audit.prompt.text", otel="gen_ai.input.messages", asim="EventOriginalRequestDetails")] = ""
    response_text: Annotated[str, _f(
        "What came back; masked, sealed or absent by mode.", "The limit is 2,000 EUR.", group="content", form="text",
        ocsf="unmapped.response_text", ecs="ai_audit.response.text", otel="gen_ai.output.messages",
        asim="EventOriginalResultDetails")] = ""
    prompt_hash: Annotated[str, _f(
        "HMAC-SHA-256 of the prompt text under the tenant's key, with the key's id: alg:keyid:hex. Never a plain hash.",
        "hmac-sha256:k1:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", lower=True, group="content",
        ocsf="unmapped.prompt_hash", ecs="ai_audit.prompt.hash", asim="AdditionalFields")] = ""
    response_hash: Annotated[str, _f(
        "HMAC-SHA-256 of the response text under the tenant's key: alg:keyid:hex.",
        "hmac-sha256:k1:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752", lower=True, group="content",
        ocsf="unmapped.response_hash", ecs="ai_audit.response.hash", asim="AdditionalFields")] = ""
    system_hash: Annotated[str, _f(
        "HMAC-SHA-256 of the system prompt: changes when an application's instructions change.",
        "hmac-sha256:k1:fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13", lower=True, group="content",
        ocsf="unmapped.system_hash", ecs="ai_audit.system.hash", asim="AdditionalFields")] = ""
    prompt_chars: Annotated[int | None, _f(
        "Length of the prompt text before any masking.", 812, unit="characters", group="content",
        ocsf="unmapped.prompt_chars", ecs="ai_audit.prompt.chars", asim="AdditionalFields")] = None
    response_chars: Annotated[int | None, _f(
        "Length of the response text before any masking.", 1290, unit="characters", group="content",
        ocsf="unmapped.response_chars", ecs="ai_audit.response.chars", asim="AdditionalFields")] = None
    truncated: Annotated[bool | None, _f(
        "True when a text was cut to its cap; the hash is over the whole text.", True, group="content",
        ocsf="metadata.is_truncated", ecs="ai_audit.truncated", asim="AdditionalFields")] = None

    # --- verdicts
    prompt_classification: Annotated[Classification, _f(
        "Main finding in the prompt; clean when judged and nothing was found; empty when there was no text to judge.",
        "prompt_injection", lower=True, group="verdict", ocsf="resources[].data_classifications[].category",
        ocsf_exact="unmapped.prompt_classification", ecs="ai_audit.prompt.classification", cim="category",
        asim="AdditionalFields")] = ""
    response_classification: Annotated[Classification, _f(
        "Main finding in the response; clean when judged and nothing was found; empty when there was no text.",
        "financial", lower=True, group="verdict", ocsf="resources[].data_classifications[].category",
        ocsf_exact="unmapped.response_classification", ecs="ai_audit.response.classification", cim="category",
        asim="AdditionalFields")] = ""
    injection_score: Annotated[float | None, _f(
        "Strength of the evidence of prompt injection in user and tool text, noisy-or over independent concepts.",
        0.93, unit="0..1", group="verdict", ocsf="confidence_score", ocsf_exact="unmapped.injection_score",
        ecs="ai_audit.injection.score", asim="AdditionalFields")] = None
    injection_tier: Annotated[InjectionTier, _f(
        "suspicious (hunting) or high (alert); empty when neither.", "high", lower=True, group="verdict",
        ocsf="unmapped.injection_tier", ecs="ai_audit.injection.tier", cim="severity", asim="AdditionalFields")] = ""
    leakage_types: Annotated[tuple[str, ...], _f(
        "Types of secrets and personal or financial data found, each as place:group/kind (place: prompt or response).",
        ["response:financial/card_number"], lower=True, group="verdict", ocsf="unmapped.leakage_types",
        ecs="ai_audit.leakage.types", cim="dlp_type", asim="AdditionalFields")] = ()
    leakage_count: Annotated[int | None, _f(
        "How many distinct values of those types were found.", 3, unit="values", group="verdict",
        ocsf="unmapped.leakage_count", ecs="ai_audit.leakage.count", asim="AdditionalFields")] = None
    evidence: Annotated[tuple[str, ...], _f(
        "Why: one code per piece of evidence, `concept|layer|role|start-end`, offsets into the stored text.",
        ["override_instructions|plain|user|0-36"], group="verdict", ocsf="unmapped.evidence", ecs="ai_audit.evidence",
        asim="AdditionalFields")] = ()
    classifier_version: Annotated[str, _f(
        "Version of the classifier and hash of its patterns.", "1.0+3fa9c1d2", lower=True, group="verdict",
        ocsf="unmapped.classifier_version", ecs="ai_audit.classifier.version", asim="AdditionalFields")] = ""
    response_refused: Annotated[bool | None, _f(
        "Whether the answer begins as refusals do; null when there was no answer to judge.", True, group="verdict",
        ocsf="unmapped.response_refused", ecs="ai_audit.response.refused", asim="AdditionalFields")] = None
    guardrail_action: Annotated[str, _f(
        "What the provider's or gateway's guardrail did: blocked, flagged, masked, allowed, failed; empty: none ran.",
        "blocked", lower=True, group="verdict", ocsf="disposition_id", ocsf_exact="unmapped.guardrail_action",
        ecs="gen_ai.policy.action", cim="action", asim="AdditionalFields")] = ""
    guardrail_name: Annotated[str, _f(
        "Which guardrail or filter.", "azure-content-filter", lower=True, group="verdict", ocsf="policy.name",
        ecs="gen_ai.policy.name", cim="signature", asim="AdditionalFields")] = ""
    guardrail_categories: Annotated[tuple[str, ...], _f(
        "What the guardrail saw.", ["jailbreak"], lower=True, group="verdict", ocsf="unmapped.guardrail_categories",
        ecs="gen_ai.compliance.violation_code", cim="category", asim="AdditionalFields")] = ()
    verdict_opinions: Annotated[tuple[str, ...], _f(
        "What every other judge said beside aitrail's own verdict, as `judge|attack or leak|yes, no or none|score`: "
        "guardrails and filters of the provider, and scorers. None: it was asked and could not answer.",
        ["azure-content-filter|attack|yes"], lower=True, group="verdict", ocsf="unmapped.verdict_opinions",
        ecs="ai_audit.verdict.opinions", asim="AdditionalFields")] = ()
    verdict_agreement: Annotated[tuple[str, ...], _f(
        "How aitrail's own verdict and the others compare, as `attack or leak:both, only_own, only_other or neither`.",
        ["attack:both"], lower=True, group="verdict", ocsf="unmapped.verdict_agreement",
        ecs="ai_audit.verdict.agreement", asim="AdditionalFields")] = ()
    atlas: Annotated[tuple[str, ...], _f(
        "MITRE ATLAS techniques with the edition.", ["aml.t0051.000@5.6.0"], lower=True, group="verdict",
        ocsf="attacks[].technique.uid", ocsf_exact="unmapped.atlas", ecs="threat.technique.id",
        ecs_exact="ai_audit.atlas", cim="mitre_technique_id", asim="AdditionalFields")] = ()
    owasp: Annotated[tuple[str, ...], _f(
        "OWASP LLM Top 10 ids with the edition.", ["llm01:2025", "llm01:2026"], lower=True, group="verdict",
        ocsf="unmapped.owasp", ecs="tags", ecs_exact="ai_audit.owasp", cim="annotations",
        asim="AdditionalFields")] = ()
    risk_score: Annotated[int | None, _f(
        "Risk of this event by its verdicts and kind.", 80, unit="0..100", group="verdict", ocsf="risk_score",
        ecs="event.risk_score", cim="risk_score", asim="AdditionalFields")] = None
    risk_reasons: Annotated[tuple[str, ...], _f(
        "What made up the risk score, as codes.", ["injection_high"], lower=True, group="verdict",
        ocsf="unmapped.risk_reasons", ecs="ai_audit.risk.reasons", asim="AdditionalFields")] = ()

    # --- outcome and cost
    outcome_status: Annotated[OutcomeStatus, _f(
        "success, blocked (a guardrail stopped it), denied (no permission), throttled, error or unknown.", "success",
        lower=True, group="outcome", ocsf="status_id", ocsf_exact="status_detail", ecs="event.outcome",
        ecs_exact="ai_audit.outcome.status", otel="error.type", cim="status", asim="EventResult")] = "unknown"
    finish_reason: Annotated[str, _f(
        "Why generation ended.", "stop", lower=True, group="outcome", ocsf="unmapped.finish_reason",
        ecs="ai_audit.finish_reason", otel="gen_ai.response.finish_reasons", asim="EventFinishReasons")] = ""
    error_code: Annotated[str, _f(
        "The provider's error code, lower-case.", "accessdeniedexception", lower=True, group="outcome",
        ocsf="api.response.error", ecs="error.code", otel="error.type", asim="EventOriginalErrorType")] = ""
    http_status: Annotated[int | None, _f(
        "HTTP status that the caller got.", 200, group="outcome", ocsf="http_response.code",
        ecs="http.response.status_code", otel="http.response.status_code", cim="status",
        asim="EventErrorDetails")] = None
    latency_ms: Annotated[float | None, _f(
        "Time from request to the end of the answer.", 1840.5, unit="ms", group="outcome", ocsf="duration",
        ocsf_exact="unmapped.latency_ms", ecs="event.duration", ecs_exact="ai_audit.latency_ms", otel="duration",
        cim="duration", asim="AdditionalFields")] = None
    first_token_ms: Annotated[float | None, _f(
        "Time from request to the first token.", 310.0, unit="ms", group="outcome", ocsf="unmapped.first_token_ms",
        ecs="ai_audit.first_token_ms", otel="gen_ai.response.time_to_first_chunk", asim="AdditionalFields")] = None
    token_count: Annotated[int | None, _f(
        "All tokens of the call: prompt (with cached ones) and completion.", 1310, unit="tokens", group="outcome",
        ocsf="message_context.total_tokens", ecs="ai_audit.usage.total_tokens", asim="AdditionalFields")] = None
    prompt_tokens: Annotated[int | None, _f(
        "Tokens of the prompt, cached ones included.", 1120, unit="tokens", group="outcome",
        ocsf="message_context.prompt_tokens", ecs="gen_ai.usage.input_tokens", otel="gen_ai.usage.input_tokens",
        asim="InputTokensUsed")] = None
    completion_tokens: Annotated[int | None, _f(
        "Tokens of the answer.", 190, unit="tokens", group="outcome", ocsf="message_context.completion_tokens",
        ecs="gen_ai.usage.output_tokens", otel="gen_ai.usage.output_tokens", asim="OutputTokensUsed")] = None
    cached_tokens: Annotated[int | None, _f(
        "Tokens of the prompt that came from or went into the provider's cache.", 900, unit="tokens", group="outcome",
        ocsf="unmapped.cached_tokens", ecs="ai_audit.usage.cached_tokens", otel="gen_ai.usage.cache_read.input_tokens",
        asim="AdditionalFields")] = None
    cost_usd: Annotated[float | None, _f(
        "Cost of the call as the gateway computed it.", 0.0123, unit="USD", group="outcome", ocsf="unmapped.cost_usd",
        ecs="ai_audit.cost.usd", asim="AdditionalFields")] = None

    # --- behavior and ledger (filled by later stages)
    behavior_score: Annotated[float | None, _f(
        "How unusual this is for the entity and its peers.", 12.5, unit="points", group="behavior",
        ocsf="unmapped.behavior_score", ecs="ai_audit.behavior.score", asim="AdditionalFields")] = None
    behavior_signals: Annotated[tuple[str, ...], _f(
        "Which signals fired.", ["first_seen_model"], lower=True, group="behavior", ocsf="unmapped.behavior_signals",
        ecs="ai_audit.behavior.signals", asim="AdditionalFields")] = ()
    ledger_index: Annotated[int | None, _f(
        "Place of the event in the tamper-evident ledger.", 10442, group="ledger", ocsf="unmapped.ledger_index",
        ecs="ai_audit.integrity.index", asim="AdditionalFields")] = None
    ledger_checkpoint: Annotated[str, _f(
        "The signed checkpoint that covers it.", "acme.example/ai 10500", group="ledger",
        ocsf="unmapped.ledger_checkpoint", ecs="ai_audit.integrity.checkpoint", asim="AdditionalFields")] = ""


FIELD_NAMES: tuple[str, ...] = AccessEvent.__struct_fields__
ACTION_KINDS: tuple[str, ...] = get_args(ActionKind)
OUTCOMES: tuple[str, ...] = get_args(OutcomeStatus)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AccessEvent)


def encode(event: AccessEvent) -> bytes:
    """Give the event's canonical bytes: one JSON object, fields in catalog order, defaults absent."""
    return _encoder.encode(event)


def decode(data: bytes) -> AccessEvent:
    """Read canonical bytes back; raises ``msgspec.ValidationError`` when they are not an AccessEvent."""
    return _decoder.decode(data)


def make_event_id(tenant_id: str, source: str, upstream_id: str) -> str:
    """Derive the deterministic event_id: BLAKE2b-128 over tenant, source and the upstream id, each length-safe."""
    state = _id_state(tenant_id, source).copy()
    state.update(upstream_id.encode("utf-8", "surrogatepass"))
    return state.hexdigest()


@lru_cache(maxsize=1024)
def _id_state(tenant_id: str, source: str) -> "hashlib.blake2b":
    """The hash state that all ids of one tenant and source start from: computing it anew costs more than the rest."""
    return hashlib.blake2b(f"{tenant_id}\x00{source}\x00".encode("utf-8", "surrogatepass"), digest_size=16)
