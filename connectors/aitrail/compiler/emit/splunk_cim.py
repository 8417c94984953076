"""Sourcetypes, field names of the Common Information Model, eventtypes and tags of the Splunk app.

Facts ("Search-time operation sequence"): extractions come first, then ``KV_MODE``, aliases, calculated fields (all of
them see what was there before the first), lookups, eventtypes, tags. So a calculated field may read every field of the
event and no other calculated one. ``KV_MODE = json`` and no indexed extraction: each field once. A field that several
of ours could fill (``vendor_account``: the cloud account, else the tenant) is calculated; the others are aliases of
what the catalog names. No name of the event itself is given another meaning, because searches read those - but for
``action``, for which the models prescribe words: what the source called the operation is ``vendor_action``, extracted
so that the index answers a search for it.

Prescribed ("Common Information Model Add-on", the models' fields): Authentication ``action`` success, failure, error,
pending; Intrusion Detection ``action`` allowed, blocked; Change ``action`` created, deleted, modified, acl_modified,
stopped and ``status`` success, failure; Web ``status`` an HTTP status, ``http_method`` a method. One event has one
``action``, so no event is in two of the first three. What no record says is absent (the models' own searches then put
"unknown"); a guess is none.
"""

from aitrail.compiler.emit.splunk_conf import Stanza
from aitrail.schema.catalog import fields

# Of the record, not of the data models; and what Splunk itself sets.
_NOT_ALIASED = ("_time", "_indextime")
_TIMED = {
    "SHOULD_LINEMERGE": "false",
    "LINE_BREAKER": r"([\r\n]+)",
    "TIME_PREFIX": r'"timestamp":\s*"',
    "TIME_FORMAT": "%Y-%m-%dT%H:%M:%S.%3N%Z",
    "MAX_TIMESTAMP_LOOKAHEAD": "40",
    "TRUNCATE": "1000000",
    "KV_MODE": "json",
    "AUTO_KV_JSON": "false",
    "category": "Application",
    "pulldown_type": "1",
}
_PROMPT, _ANSWER = (f'coalesce({name}_classification, "clean")' for name in ("prompt", "response"))
_TIER = 'coalesce(injection_tier, "")'
_KIND, _OUTCOME, _DID = (f'coalesce({name}, "")' for name in ("action_kind", "outcome_status", "action"))
_STOPPED = f'match({_OUTCOME}, "^(blocked|denied|throttled)$")'
# Sessions begin; all else about keys and roles ("auth", too) changes them.
_LOGIN = (
    f'({_KIND}=="auth" AND match({_DID}, '
    '"log_?[io]n(?!profile)|sign_?in|authenticat|assumerole|getsessiontoken|federationtoken"))'
)
_VERBS = {
    "deleted": "delet|remov|revok|archiv|destroy|detach|deregister|purge|undeploy",
    "stopped": "stop|disabl|pause|cancel|deactivat",
    "acl_modified": "policy|permission|grant|acls?$",
    "created": "creat|(?<!re)generat|import|upload|regist|invite|(^|[^a-z])add(ed)?([^a-z]|$)",
    "modified": "updat|modif|put|attach|write|chang|enabl|rotat|restor|edit|renam|copy|deploy|ingest|regenerat",
}
_WORDS = ", ".join(f'match({_DID}, "{verb}"), "{word}"' for word, verb in _VERBS.items())
_CHANGE = (
    f'(match({_KIND}, "^(admin|guardrail|weights|data|auth)$") AND NOT {_LOGIN} AND (coalesce(read_only, "")=="false" '
    f'OR (isnull(read_only) AND match({_DID}, "{"|".join(_VERBS.values())}"))))'
)
_EVALS = {
    # Which of the models that prescribe words an access is for.
    "aitrail_kind": f'case({_LOGIN}, "authentication", {_CHANGE}, "change", true(), "use")',
    "action": (
        f'case({_LOGIN}, case({_OUTCOME}=="success", "success", match({_OUTCOME}, "^(blocked|denied)$"), "failure", '
        f'match({_OUTCOME}, "^(error|throttled)$"), "error", true(), null()), '
        f'{_CHANGE}, case({_WORDS}, true(), "modified"), '
        f'{_KIND}=="inference" OR {_TIER}!="", if({_STOPPED}, "blocked", "allowed"), true(), "read")'
    ),
    "object_category": "coalesce(resource_type, action_kind)",
    "object": 'coalesce(tool, resource_id, model, "unknown")',
    "object_id": 'coalesce(resource_id, model, "unknown")',
    "vendor_account": "coalesce(cloud_account, tenant_id)",
    "src": 'coalesce(src_ip, src_host, "unknown")',
    "dest": 'coalesce(service, app, "unknown")',
    "status": (
        f'case(NOT {_CHANGE}, http_status, {_OUTCOME}=="success", "success", '
        f'match({_OUTCOME}, "^(unknown|)$"), null(), true(), "failure")'
    ),
    "result": "outcome_status",
    "category": (
        f'case({_PROMPT}!="clean", prompt_classification, {_ANSWER}!="clean", response_classification, '
        'isnotnull(guardrail_name), "guardrail", true(), coalesce(action_kind, "unknown"))'
    ),
    "signature": (
        f'case(isnotnull(guardrail_name), guardrail_name, {_TIER}!="", "prompt injection", '
        'isnotnull(leakage_count), "data leakage", true(), coalesce(action, "unknown"))'
    ),
    "severity": (
        f'case({_TIER}=="high", "high", isnotnull(leakage_count), "high", {_TIER}=="suspicious", "medium", '
        'true(), "informational")'
    ),
    "dvc": 'coalesce(app, service, "aitrail")',
    "url": 'coalesce(model, resource_id, "unknown")',
    "http_method": '"POST"',
    "url_domain": 'coalesce(service, app, "unknown")',
    # Characters: no source counts bytes.
    "bytes": "prompt_chars + response_chars",
    "bytes_in": "prompt_chars",
    "bytes_out": "response_chars",
    "http_user_agent_length": "len(user_agent)",
    "object_attrs": 'coalesce(model_version, "unknown")',
    "object_path": 'coalesce(destination_uri, resource_id, "unknown")',
    "ids_type": '"application"',
    "change_type": '"ai service"',
    "command": "action",
    "src_user": 'coalesce(user_id, "unknown")',
    "user": 'coalesce(user_id, "unknown")',
    "vendor_product": '"aitrail"',
}
_FINDING = {
    # A rule tells and stops nothing.
    "action": '"allowed"',
    "app": '"aitrail"',
    "category": '"ai threat"',
    "description": "coalesce(summary, rule_name)",
    "dest": 'if(coalesce(tenant_id, "")=="", "aitrail", tenant_id)',
    "dvc": '"aitrail"',
    "id": "event_id",
    "ids_type": '"application"',
    "signature": "coalesce(rule_name, rule_id)",
    "signature_id": "rule_id",
    "src": 'coalesce(entity_ip, "unknown")',
    "type": '"alert"',
    "user": 'coalesce(user_id, "unknown")',
    "vendor_account": "tenant_id",
    "vendor_product": '"aitrail"',
}


def props() -> dict[str, Stanza]:
    """``props.conf``."""
    own = {"EXTRACT-event_source": r'"source":\s*"(?<event_source>[^"]*)"'}
    did = {"EXTRACT-vendor_action": r'"action":\s*"(?<vendor_action>(?:[^"\\]|\\.)*)"'}
    access: dict[str, str | int] = {
        **_TIMED,
        **own,
        **did,
        "description": "Accesses to AI systems, normalized and classified by aitrail",
        "FIELDALIAS-cim": " ".join(f"{one} ASNEW {name}" for one, name in aliases()),
        **{f"EVAL-{name}": text for name, text in _EVALS.items()},
        "LOOKUP-aitrail_department": "aitrail_departments department OUTPUTNEW owner AS department_owner",
        "LOOKUP-aitrail_owner": "aitrail_owners app OUTPUTNEW owner AS app_owner",
    }
    finding: dict[str, str | int] = {
        **_TIMED,
        "description": "Findings of aitrail's rules",
        "EXTRACT-entity_ip": r'"ip:(?<entity_ip>[^"]+)"',
        **{f"EVAL-{name}": text for name, text in _FINDING.items()},
        "LOOKUP-aitrail_rule": "aitrail_rules rule_id OUTPUTNEW validate contain investigate remediate",
    }
    return {
        "ai:access:audit": access,
        "ai:access:alert": finding,
        "ai:access:health": {**_TIMED, **own, "description": "Health of aitrail's sources and destinations"},
        "ai:access:chain": {**_TIMED, "description": "Signed checkpoints of aitrail's ledger"},
    }


def aliases() -> list[tuple[str, str]]:
    """Field and alias, where the catalog names one that no calculated field has and no other field claims."""
    claimed: dict[str, list[str]] = {}
    lists = {field.name for field in fields() if field.kind == "list"}
    for field in fields():
        name = field.names.get("cim", "")
        if name and name not in _NOT_ALIASED and name not in _EVALS and name != field.name:
            claimed.setdefault(name, []).append(field.name)
    known = {field.name for field in fields()}
    found = [(names[0], name) for name, names in claimed.items() if len(names) == 1 and name not in known]
    return [(f'"{one}{{}}"' if one in lists else one, name) for one, name in found] + [
        ("user_agent", "http_user_agent")
    ]


# An event type cannot hold a macro with a subsearch, and does not need the index: the sourcetype is ours alone.
_BASE = 'sourcetype="ai:access:audit"'
# Name -> search and tags. One event may have several.
_TYPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "aitrail_access": (_BASE, ("data", "access")),
    "aitrail_inference": (f'{_BASE} action_kind="inference"', ("web",)),
    "aitrail_leakage": (f"{_BASE} leakage_count>0", ("dlp", "incident")),
    "aitrail_attack": (
        f'{_BASE} injection_tier IN ("suspicious", "high") aitrail_kind="use"',
        ("ids", "attack"),
    ),
    "aitrail_change": (f'{_BASE} aitrail_kind="change"', ("change",)),
    "aitrail_authentication": (f'{_BASE} aitrail_kind="authentication"', ("authentication",)),
    "aitrail_finding": ('sourcetype="ai:access:alert"', ("alert",)),
    "aitrail_finding_attack": (
        'sourcetype="ai:access:alert" owasp{} IN ("llm01:2025", "llm01:2026")',
        ("ids", "attack"),
    ),
}


def eventtypes() -> dict[str, Stanza]:
    """``eventtypes.conf``."""
    return {name: {"search": search} for name, (search, _) in _TYPES.items()}


def tags() -> dict[str, Stanza]:
    """``tags.conf``."""
    return {f"eventtype={name}": dict.fromkeys(of, "enabled") for name, (_, of) in _TYPES.items()}
