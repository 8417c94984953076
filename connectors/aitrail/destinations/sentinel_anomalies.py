"""Findings as rows of Sentinel's own table ``Anomalies``, where its entity pages and hunting look.

Only columns that the table has are filled (Azure Monitor table reference, "Anomalies"); ``TenantId``, ``WorkspaceId``,
``SourceSystem`` and ``Type`` are Azure's to fill, and ``ExtendedLinks`` has nothing to link to. What a finding has no
column for is in ``ExtendedProperties``, so that no field of it is lost. ``Tactics`` and ``Techniques`` are MITRE
ATT&CK's, from the tags of the rule; ATLAS and OWASP are other catalogs and stay in ``ExtendedProperties``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from aitrail.destinations._raw_fields import UNENCODABLE_CODE, Unencodable
from aitrail.destinations.sentinel_rows import FIELD_BYTES, StreamKind
from aitrail.ports import EncodedEvent
from aitrail.streams import Finding
from aitrail.streams import decoded as decoded_record

ANOMALIES = StreamKind("Custom-Anomalies", None, "Anomalies", "EndTime")

_VENDOR = "aitrail"
# The other status of the table, Flighting, is of rules on trial; those ship nothing here.
_STATUS = "Production"
# Two lists share a bag, which is one value for Azure's limit.
_BAG_LIST_BYTES = FIELD_BYTES // 3
_ATTACK = "attack."

_encode = msgspec.json.Encoder().encode
_Json = dict[str, Any]


class AnomalyRows:
    """Makes rows of findings. Thread-safe."""

    def row(self, item: EncodedEvent) -> bytes:
        """Give the row; raises ``Unencodable``."""
        return _encode(anomaly(_finding(item)))

    def time_generated(self, item: EncodedEvent) -> str:
        """The canonical time that ``row`` writes as ``TimeGenerated``; raises ``Unencodable``."""
        return _generated(_finding(item))


def anomaly(finding: Finding) -> _Json:
    """Give the row of one finding: column -> value, without columns that would be empty."""
    tactics, techniques = _attack(finding.tags)
    users = [finding.user_id] if finding.user_id else _values(finding.entities, "user")
    user = users[0] if len(users) == 1 else ""
    addresses = _values(finding.entities, "ip")
    row: _Json = {
        "TimeGenerated": _generated(finding),
        "Id": finding.event_id,
        "VendorName": _VENDOR,
        "RuleId": finding.rule_id,
        "RuleName": finding.rule_name or finding.rule_id,
        "RuleConfigVersion": finding.rule_version,
        "RuleStatus": _STATUS,
        "AnomalyTemplateId": finding.rule_id,
        "AnomalyTemplateName": finding.rule_name or finding.rule_id,
        "AnomalyTemplateVersion": finding.rule_version,
        # Sentinel's own scores are between 0 and 1.
        "Score": None if finding.risk_score is None else finding.risk_score / 100,
        "Description": finding.summary,
        "StartTime": finding.first_seen or finding.timestamp,
        "EndTime": finding.timestamp,
        # The two columns are strings that hold a list.
        "Tactics": _encode(tactics).decode() if tactics else "",
        "Techniques": _encode(techniques).decode() if techniques else "",
        "UserName": user,
        "UserPrincipalName": user if "@" in user else "",
        "SourceIpAddress": addresses[0] if addresses else "",
        "Entities": _fitting(_entities(finding), FIELD_BYTES),
        "AnomalyReasons": [_filled({"Name": finding.rule_name or finding.rule_id, "Description": finding.summary})],
        "AnomalyDetails": {"Severity": finding.severity, "EvidenceCount": finding.evidence_count},
        "ExtendedProperties": _bag(finding),
    }
    return _filled(row)


def _finding(item: EncodedEvent) -> Finding:
    try:
        record = decoded_record(item)
    except ValueError:
        raise Unencodable(UNENCODABLE_CODE) from None
    if not isinstance(record, Finding):
        raise Unencodable(UNENCODABLE_CODE)
    return record


def _generated(finding: Finding) -> str:
    return finding.detected_at or finding.timestamp


def _bag(finding: Finding) -> _Json:
    """What there is no column for, or more than the column holds, under the names of ``AIAuditFindings_CL``."""
    return _filled(
        {
            "EventUid": finding.event_id,
            "AITenantId": finding.tenant_id,
            "Severity": finding.severity,
            "RiskScore": finding.risk_score,
            "DetectedAt": finding.detected_at,
            "EvidenceCount": finding.evidence_count,
            "EvidenceIds": _fitting(finding.evidence_ids, _BAG_LIST_BYTES),
            "Entities": _fitting(finding.entities, _BAG_LIST_BYTES),
            "Atlas": finding.atlas,
            "Owasp": finding.owasp,
            "Tags": finding.tags,
        }
    )


def _attack(tags: Sequence[str]) -> tuple[list[str], list[str]]:
    """ATT&CK tactics and techniques of Sigma tags: ``attack.initial-access``, ``attack.t1078.004``."""
    tactics, techniques = [], []
    for tag in tags:
        if not tag.startswith(_ATTACK):
            continue
        name = tag.removeprefix(_ATTACK)
        if name[:1] == "t" and name[1:5].isdigit():
            techniques.append(name.upper())
        else:
            tactics.append("".join(part.capitalize() for part in name.replace("_", "-").split("-")))
    return tactics, techniques


def _values(entities: Sequence[str], kind: str) -> list[str]:
    return [one.partition(":")[2] for one in entities if one.startswith(f"{kind}:")]


def _account(value: str) -> _Json:
    name, at, domain = value.rpartition("@")
    return {"Name": name, "UPNSuffix": domain} if at and name and domain else {"Name": value}


# Kind of an entity -> Sentinel's entity type and its identifier (Sentinel docs, "Entity types reference"). Models have
# no type of their own; sessions, cloud accounts and departments have none that fits.
_ENTITY_TYPES: Mapping[str, tuple[str, Callable[[str], _Json]]] = {
    "user": ("account", _account),
    "email": ("account", _account),
    "ip": ("ip", lambda value: {"Address": value}),
    "host": ("host", lambda value: {"HostName": value}),
    "application": ("cloud-application", lambda value: {"Name": value}),
    "model": ("cloud-application", lambda value: {"Name": value}),
}
_AZURE = ("azure-resource", lambda value: {"ResourceId": value})
_AZURE_PREFIX = "/subscriptions/"


def _entities(finding: Finding) -> list[_Json]:
    about = [f"user:{finding.user_id}"] if finding.user_id else []
    found: list[_Json] = []
    for entity in dict.fromkeys((*about, *finding.entities)):
        kind, _, value = entity.partition(":")
        is_azure = kind == "resource" and value.lower().startswith(_AZURE_PREFIX)
        entry = _AZURE if is_azure else _ENTITY_TYPES.get(kind)
        if entry is not None and value:
            found.append({"$id": str(len(found) + 1), "Type": entry[0], **entry[1](value)})
    return found


def _fitting(values: Sequence[Any], most: int) -> list[Any]:
    """As many of the first values as ``most`` bytes hold: Azure would cut the JSON in its middle."""
    kept: list[Any] = []
    used = 2
    for value in values:
        used += len(_encode(value)) + 1
        if used > most:
            break
        kept.append(value)
    return kept


def _filled(values: _Json) -> _Json:
    return {name: value for name, value in values.items() if value not in ("", None, [], ())}
