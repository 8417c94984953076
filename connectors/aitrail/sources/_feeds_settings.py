"""What ``[sources.NAME]`` of the polled feeds may say."""

from typing import Annotated, Literal

from msgspec import Meta

from aitrail.sources._rest import FeedSettings


class OpenAiAuditSettings(FeedSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of ``openai_audit``: the audit log of an OpenAI organization."""

    token: Annotated[str, Meta(description="Reference to an admin key that may read audit logs (api.audit_logs.read).")]
    base_url: Annotated[str, Meta(description="Where the API is.")] = "https://api.openai.com"
    project_ids: Annotated[tuple[str, ...], Meta(description="Only these projects; empty: all.")] = ()


class AnthropicSettings(FeedSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of ``anthropic_compliance``: the activity feed of Anthropic's Compliance API."""

    token: Annotated[
        str, Meta(description="Reference to a compliance access key or admin key (read:compliance_activities).")
    ]
    base_url: Annotated[str, Meta(description="Where the API is.")] = "https://api.anthropic.com"


class DatabricksSettings(FeedSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of ``databricks_ai``: inference tables and usage tables through the SQL statement API."""

    base_url: Annotated[str, Meta(description="The workspace, https://….cloud.databricks.com.")]
    token: Annotated[str, Meta(description="Reference to a token that may use the warehouse and read the table.")]
    warehouse_id: Annotated[str, Meta(description="SQL warehouse that runs the query.")]
    table: Annotated[str, Meta(description="catalog.schema.table; `system.ai_gateway.usage` for usage.")]
    kind: Annotated[Literal["inference", "usage"], Meta(description="Which columns the table has.")] = "inference"
    overlap_minutes: Annotated[
        float, Meta(description="Read this much again at each turn: rows come up to an hour late.", gt=0)
    ] = 120.0
    window_minutes: Annotated[float, Meta(description="Longest span of one query.", gt=0)] = 360.0


class CloudflareSettings(FeedSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of ``cloudflare_ai``: logs of one AI Gateway."""

    account_id: Annotated[str, Meta(description="Account that the gateway belongs to.")]
    gateway: Annotated[str, Meta(description="Name of the gateway.")]
    token: Annotated[str, Meta(description="Reference to an API token with the permission AI Gateway Read.")]
    base_url: Annotated[str, Meta(description="Where the API is.")] = "https://api.cloudflare.com/client/v4"
    page_size: Annotated[int, Meta(description="Records of one page.", ge=1, le=50)] = 50
