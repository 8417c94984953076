"""``aitrail init``: write a commented configuration to start from."""

from pathlib import Path

import click

from aitrail.errors import ConfigError

TEMPLATE = """\
# aitrail configuration. `aitrail check` says what is wrong with it; `aitrail run` collects as it says.
# Paths are relative to this file. Secrets are references (env:NAME, file:/path), never the secret itself.

[store]
dir = "aitrail-store"        # the embedded store: SQLite for state, Parquet for events
retention_days = 0           # drop whole days older than this; 0 keeps everything

# One section per tenant; records without another tenant belong to "default".
[tenants.default]
content = "redacted"         # none | hash | redacted | full | sealed
# key = "env:AITRAIL_KEY"    # hash key from elsewhere; without it one is made in <store>/keys

# One section per source. Files, directories and globs; plain, gzip or zstd. What is new is read again and again.
[sources.logs]
type = "file"
paths = ["logs/"]            # CloudTrail dumps, Azure exports, LiteLLM logs, OTLP JSON: the type is told per record
tenant = "default"
interval = 10                # seconds between two looks; `aitrail status` says how each source is doing
# record_type = "litellm"    # only when every record of this source is of one type

# What gateways push over HTTP to `aitrail serve`; one section per path. docs/sources/receivers.md has the settings.
# [receivers.litellm]
# path = "/ingest/litellm"
# tokens = ["env:LITELLM_TOKEN"]
# record_type = "litellm"

# What alert actions of a SIEM may ask `aitrail serve` to do: open a case, block a key or user. docs/respond.md.
# [respond]
# tokens = ["env:RESPOND_TOKEN"]
# dry_run = true             # say and record what would be blocked, block nothing
# [respond.gateways.proxy]
# url = "https://litellm.example.com"
# key = "env:LITELLM_ADMIN_KEY"

# Where events go besides the store; one section each, in a thread of its own. docs/destinations.md has the settings.
# [destinations.splunk]
# type = "splunk"            # splunk | elastic | sentinel | kafka | fluentd | syslog | lake
# urls = ["https://splunk.example:8088"]
# token = "env:SPLUNK_HEC_TOKEN"
# where = "action_kind = 'inference'"                # only these; docs/destinations.md has the operators
# content = "hash"                                   # less content than the tenant keeps
# rate = { events = 2000 }                           # at most so many per second

# How much may wait for destinations before sources pause; nothing is dropped.
# [spool]
# max_bytes = 20_000_000_000

# The detection rules run on the store; findings are in `aitrail report` and go to destinations that take them.
# [detect]
# interval = 300
# without = ["secret_in_prompt"]

# Where gateways, request metadata and span attributes keep these facts; the first name that is there wins.
# [mapping]
# user = ["user_id", "enduser.id"]
# department = ["department", "team"]
# session = ["session_id"]
# purpose = ["purpose"]
# ticket = ["ticket"]

# How prompts and answers are judged; docs/classification.md has the rest.
# [classify]
# calibration = "thresholds.toml"              # aitrail classify calibrate --out thresholds.toml
# fingerprints = "fingerprints.json"           # aitrail classify fingerprint
# canaries = { retail-bot = ["env:CANARY"] }   # tokens planted in system prompts
# [classify.scorers.prompt-guard]              # a further judge; a model stays on this machine, services get text
# type = "model"                               # model | azure-prompt-shields | bedrock-guardrail
# directory = "models/prompt-guard"

# Who works where, when the records do not say. CSV with the columns user, department, name, email, type.
# [directory]
# file = "people.csv"
"""

EPILOG = """\b
Examples:
  aitrail init                      writes ./aitrail.toml
  aitrail init prod.toml            another name
  aitrail init - | less             only look
"""


@click.command(epilog=EPILOG)
@click.argument("path", type=click.Path(dir_okay=False, allow_dash=True), default="aitrail.toml")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(path: str, force: bool) -> None:
    """Write a commented configuration to PATH (default aitrail.toml)."""
    if path == "-":
        click.echo(TEMPLATE, nl=False)
        return
    target = Path(path)
    if target.exists() and not force:
        raise ConfigError(f"{target} exists", hint="choose another name, or overwrite it with --force")
    try:
        target.write_text(TEMPLATE, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{target} cannot be written ({error.strerror})") from None
    click.echo(f"wrote {target}; edit it, then: aitrail check -c {target} && aitrail run -c {target}")
