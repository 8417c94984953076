"""The modular inputs of the Splunk add-on: what each is called, which source it polls, and what can be set.

One table for the form that Splunk shows, for ``inputs.conf.spec`` and for the program that reads the settings. Splunk
hands over texts: ``kind`` says what they mean. ``index``, ``interval`` and ``host`` are Splunk's own.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from aitrail.streams import Stream

ADDON = "TA-aitrail"
INDEX = "ai_audit"
INTERVAL = 300
# Sourcetypes of the Splunk app, by what a record is: the same as by the HTTP Event Collector.
SOURCETYPES: Mapping[Stream, str] = {"access": "ai:access:audit", "health": "ai:access:health"}

Kind = Literal["text", "list", "number", "secret"]
# What Splunk shows instead of a secret that lies in storage/passwords.
MASK = "********"


class Arg(Struct, frozen=True):
    """One setting of an input.

    Attributes:
        name: as Splunk calls it; empty ``setting``: it is no setting of the source.
        setting: as the source calls it; ``=``: by the same name.
        required: an input cannot be made without it.
    """

    name: str
    title: str
    description: str
    kind: Kind = "text"
    setting: str = "="
    required: bool = False

    @property
    def source_setting(self) -> str:
        """The source's name for it; empty when it has none."""
        return self.name if self.setting == "=" else self.setting


class Scheme(Struct, frozen=True):
    """One kind of input.

    Attributes:
        name: of the scheme, and of its script in ``bin``.
        source: type of the source (``aitrail.registry.SOURCES``).
        credential: how the source is given its secret: as AWS keys of the process, or as a reference.
    """

    name: str
    title: str
    description: str
    source: str
    credential: Literal["aws", "token"]
    args: tuple[Arg, ...]

    def arg(self, name: str) -> Arg | None:
        """The setting of that name."""
        return next((one for one in self.args if one.name == name), None)


_START = Arg("start", "First record", "Where the first run begins (2026-11-01T08:00:00Z); empty: 24 hours ago.")
_COMMON = (
    Arg("tenant", "Tenant", "Tenant that the records belong to; empty: default.", setting=""),
    Arg(
        "content", "Content",
        "none, hash, redacted (secrets and personal data are masked) or full; empty: redacted.", setting="",
    ),
)  # fmt: skip
_PROXY = (
    Arg("proxy", "Proxy", "http://HOST:PORT, without a user; empty: as the environment says; none: none.", setting=""),
    Arg("proxy_user", "Proxy user", "User at the proxy.", setting=""),
    Arg("proxy_password", "Proxy password", "Moved to storage/passwords when the input runs first.", "secret", ""),
    Arg("ca_file", "Authorities", "PEM file of the authorities to trust instead of the default ones.", setting=""),
)


def _feed(secret: str, base_url: str, *own: Arg) -> tuple[Arg, ...]:
    return (
        *own,
        Arg("secret", "Token", f"{secret} Moved to storage/passwords when the input runs first.", "secret", ""),
        Arg("base_url", "Address", f"Where the API is; empty: {base_url}." if base_url else "https://HOST.",
            required=not base_url),
        _START,
        Arg("overlap_minutes", "Overlap", "Minutes that each run reads again: how late a record may be.", "number"),
        *_COMMON,
        *_PROXY,
    )  # fmt: skip


SCHEMES: tuple[Scheme, ...] = (
    Scheme(
        "aitrail_cloudtrail", "aitrail: AWS CloudTrail event history",
        "Bedrock, SageMaker and other management events of the last 90 days (LookupEvents), without a trail.",
        "cloudtrail_lookup", "aws",
        (
            Arg("regions", "Regions", "AWS Regions, by commas.", "list", required=True),
            Arg("access_key_id", "Access key id", "Empty: the role of this machine.", setting=""),
            Arg("secret", "Secret access key", "Moved to storage/passwords when the input runs first.", "secret", ""),
            Arg("roles", "Roles", "ARNs of roles to assume, one per account, by commas; empty: none.", "list"),
            Arg("external_id", "External id", "What the trust policy of the roles asks for."),
            Arg("event_sources", "Services",
                "Only events of these, by commas, e.g. bedrock.amazonaws.com; empty: all (at most 100 events/s).",
                "list"),
            _START,
            Arg("calls_per_second", "Calls per second", "Per account and Region; AWS allows 2.", "number"),
            Arg("endpoint_url", "Endpoint", "URL of a private endpoint; empty: AWS."),
            *_COMMON,
            *_PROXY,
        ),
    ),
    Scheme(
        "aitrail_openai", "aitrail: OpenAI audit log", "The audit log of an OpenAI organization.",
        "openai_audit", "token",
        _feed("An admin key with api.audit_logs.read.", "https://api.openai.com",
              Arg("project_ids", "Projects", "Only these, by commas; empty: all.", "list")),
    ),
    Scheme(
        "aitrail_anthropic", "aitrail: Anthropic compliance activity",
        "The activity feed of Anthropic's Compliance API.",
        "anthropic_compliance", "token",
        _feed("A compliance access key with read:compliance_activities.", "https://api.anthropic.com"),
    ),
    Scheme(
        "aitrail_cloudflare", "aitrail: Cloudflare AI Gateway", "Logs of one AI Gateway.",
        "cloudflare_ai", "token",
        _feed("An API token with the permission AI Gateway Read.", "https://api.cloudflare.com/client/v4",
              Arg("account_id", "Account", "Account that the gateway belongs to.", required=True),
              Arg("gateway", "Gateway", "Name of the gateway.", required=True)),
    ),
    Scheme(
        "aitrail_databricks", "aitrail: Databricks AI gateway",
        "Inference tables and usage tables through the SQL statement API.",
        "databricks_ai", "token",
        _feed("A token that may use the warehouse and read the table.", "",
              Arg("warehouse_id", "Warehouse", "SQL warehouse that runs the query.", required=True),
              Arg("table", "Table", "catalog.schema.table.", required=True),
              Arg("table_kind", "Kind of table", "inference or usage; empty: inference.", setting="kind")),
    ),
)  # fmt: skip
BY_NAME: Mapping[str, Scheme] = {one.name: one for one in SCHEMES}
