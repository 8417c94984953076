"""Which field of the catalog goes where in CEF, LEEF, and in the JSON of Exabeam and Securonix: one literal table.

Facts: CEF keys and custom labels from the "ArcSight Common Event Format" implementation standard, dictionary of version
25/26; LEEF attributes from IBM's "LEEF predefined attributes"; Exabeam names from the common information model and the
parsers that ExabeamLabs publish; Securonix names are its event attributes: the long names of CEF in lower case.
A field without a name of its own keeps its catalog name: in JSON as it is, in CEF as ``aitrail`` + its name in
PascalCase (the standard's rule for a vendor's own keys), in LEEF as it is.
"""

from collections.abc import Mapping

from msgspec import Struct

from aitrail.schema.catalog import fields, pascal_case


class Names(Struct, frozen=True):
    """Where one field goes; empty: it keeps its name. ``label``: CEF's name for a custom string or number."""

    cef: str = ""
    label: str = ""
    leef: str = ""
    exabeam: str = ""
    securonix: str = ""


FIELDS: Mapping[str, Names] = {
    "event_id": Names("externalId"),
    "timestamp": Names("rt", leef="devTime", exabeam="time", securonix="eventtime"),
    "source": Names("deviceFacility", exabeam="log_name", securonix="devicefacility"),
    "tenant_id": Names(exabeam="tenant_id"),
    "user_id": Names("suser", leef="usrName", exabeam="user", securonix="accountname"),
    "user_name": Names(exabeam="full_name", securonix="sourceusername"),
    "user_email": Names(exabeam="email_address", securonix="emailaddress"),
    "principal_type": Names(exabeam="user_type", securonix="accounttype"),
    "role": Names("spriv", leef="role", securonix="sourceuserprivileges"),
    "department": Names("flexString1", "department", leef="groupID"),
    "src_ip": Names("src", leef="src", exabeam="src_ip", securonix="sourceaddress"),
    "src_host": Names("shost", leef="identHostName", exabeam="src_host", securonix="sourcehostname"),
    "user_agent": Names("requestClientApplication", exabeam="user_agent", securonix="requestclientapplication"),
    "app": Names("sourceServiceName", exabeam="app", securonix="sourceservicename"),
    "service": Names("destinationServiceName", exabeam="service_name", securonix="destinationservicename"),
    "session_id": Names(exabeam="session_id", securonix="sessionid"),
    "request_id": Names(exabeam="correlation_id"),
    "action": Names("act", exabeam="operation", securonix="deviceaction"),
    "action_kind": Names("cat", leef="cat", exabeam="category", securonix="deviceeventcategory"),
    "outcome_status": Names("outcome", exabeam="result", securonix="eventoutcome"),
    "error_code": Names("reason", exabeam="result_code", securonix="reason"),
    "resource_id": Names("filePath", leef="resource", exabeam="resource_id", securonix="resourcename"),
    "resource_type": Names("fileType", exabeam="resource", securonix="resourcetype"),
    "cloud_account": Names(exabeam="account_id"),
    "cloud_region": Names(exabeam="region"),
    "model": Names("cs1", "model", exabeam="object", securonix="customstring1"),
    "model_version": Names("cs2", "modelVersion", securonix="customstring2"),
    "prompt_classification": Names("cs3", "promptClassification", securonix="customstring3"),
    "response_classification": Names("cs4", "responseClassification", securonix="customstring4"),
    "leakage_types": Names("cs5", "leakageTypes", securonix="customstring5"),
    "atlas": Names("cs6", "atlas", securonix="customstring6"),
    "tool": Names("flexString2", "tool"),
    "token_count": Names("cn1", "tokenCount", securonix="customnumber1"),
    "risk_score": Names("cn2", "riskScore", securonix="customnumber2"),
    "http_status": Names("cn3", "httpStatus", securonix="customnumber3"),
    "injection_score": Names("cfp1", "injectionScore"),
    "latency_ms": Names("cfp2", "latencyMs"),
    "cost_usd": Names("cfp3", "costUsd"),
    "behavior_score": Names("cfp4", "behaviorScore"),
    "prompt_text": Names("msg", leef="msg", securonix="message"),
}
# ``src`` of CEF:0 is an IPv4 address; an IPv6 one has a custom key of its own.
IPV6_KEY, IPV6_LABEL = "c6a2", "Source IPv6 Address"


def _named(column: str, other: str = "") -> dict[str, str]:
    found = {}
    for field in fields():
        names = FIELDS.get(field.name, Names())
        own = other + pascal_case(field.name) if other else field.name
        found[field.name] = getattr(names, column) or own
    return found


CEF_KEYS: Mapping[str, str] = _named("cef", "aitrail")
LEEF_KEYS: Mapping[str, str] = _named("leef")
EXABEAM_KEYS: Mapping[str, str] = _named("exabeam")
SECURONIX_KEYS: Mapping[str, str] = _named("securonix")
CEF_LABELS: Mapping[str, str] = {names.cef: names.label for names in FIELDS.values() if names.label}
