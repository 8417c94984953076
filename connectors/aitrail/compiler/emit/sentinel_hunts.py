"""Hunts that no rule is: over watchlists, over what Microsoft knows of people, over the ledger's numbers.

They are written for Sentinel alone: the other platforms have neither its tables nor its functions.
"""

from typing import Any

from msgspec import Struct

from aitrail.compiler.emit.sentinel_facts import CONTENT_VERSION, PUSH_CONNECTOR, guid


class Hunt(Struct, frozen=True):
    """A hunting query.

    Attributes:
        entities: (entity, identifier, column).
        tables: what it reads beside ours.
    """

    name: str
    title: str
    about: str
    query: str
    tactics: tuple[str, ...]
    techniques: tuple[str, ...]
    entities: tuple[tuple[str, str, str], ...]
    tables: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its identity."""
        return guid("hunt", self.name)


_USER, _ADDRESS = ("Account", "FullName", "UserId"), ("IP", "Address", "SrcIp")

HUNTS = (
    Hunt(
        "ModelsNotOnWatchlist",
        "Models in use that nobody approved",
        "Models whose name begins with none of the watchlist of approved models, with who uses them. Approve them"
        " there, or close them at the gateway.",
        """\
let Approved = toscalar(_GetWatchlist('AitrailApprovedModels')
| summarize make_list(tolower(tostring(Model))));
AIAudit_CL
| where ActionKind == "inference" and isnotempty(Model)
| summarize arg_max(TimeGenerated, *) by EventUid
| summarize Calls = count(), Users = dcount(UserId), FirstTime = min(EventTime), LastTime = max(EventTime),
    UserId = take_any(UserId) by AITenantId, Model, ModelProvider
| mv-apply Start = Approved to typeof(string) on (
    summarize Known = countif(Model startswith_cs Start and isnotempty(Start)))
| where Known == 0
| project-away Known
| sort by Calls desc""",
        ("Discovery",),
        (),
        (("CloudApplication", "Name", "Model"), _USER),
    ),
    Hunt(
        "AppsWithoutOwner",
        "Applications that call models and have no owner",
        "Applications that are not on the watchlist of owners: nobody would be called at night, and nobody has answered"
        " for their purpose.",
        """\
let Owned = _GetWatchlist('AitrailOwners') | project App = tolower(tostring(App));
AIAudit_CL
| where ActionKind == "inference" and isnotempty(App)
| extend AppName = App, App = tolower(App)
| join kind=leftanti (Owned) on App
| summarize Calls = dcount(EventUid), Users = dcount(UserId), LastTime = max(EventTime),
    UserId = take_any(UserId) by AITenantId, AppName
| sort by Calls desc""",
        ("InitialAccess",),
        (),
        (("CloudApplication", "Name", "AppName"), _USER),
    ),
    Hunt(
        "DepartmentOtherThanDirectory",
        "Department of an access other than the directory's",
        "People whose accesses name a department other than the one that the directory has for them: a gateway that"
        " guesses, a key that was passed on, or a move that the barrier between departments does not know of yet.",
        """\
let Directory = IdentityInfo
| where isnotempty(AccountUPN) and isnotempty(Department)
| summarize arg_max(TimeGenerated, Department) by AccountUPN
| project UserKey = tolower(AccountUPN), DirectoryDepartment = tolower(Department);
AIAudit_CL
| where isnotempty(Department) and (UserId has "@" or UserEmail has "@")
| summarize arg_max(TimeGenerated, *) by EventUid
| extend UserKey = tolower(iff(UserEmail has "@", UserEmail, UserId))
| summarize Calls = count(), LastTime = max(EventTime), UserId = take_any(UserId) by AITenantId, UserKey, Department
| join kind=inner (Directory) on UserKey
| where Department != DirectoryDepartment
| project LastTime, AITenantId, UserId, Department, DirectoryDepartment, Calls
| sort by Calls desc""",
        ("Collection",),
        ("T1213",),
        (_USER,),
        ("IdentityInfo",),
    ),
    Hunt(
        "AnswersAcrossBarriers",
        "Answers of a restricted department that came again elsewhere",
        "Departments that the watchlist calls restricted (yes), and accesses of other departments with the very answer"
        " that one of them got before. Ask the barrier's owner whether the two may know the same.",
        """\
let Walled = _GetWatchlist('AitrailDepartments')
| where tolower(tostring(Restricted)) in ("yes", "true", "1")
| project DepartmentKey = tolower(tostring(Department)), BarrierOwner = tostring(Owner);
let Answers = AIAudit_CL
| where isnotempty(Department) and isnotempty(ResponseHash)
| summarize arg_max(TimeGenerated, *) by EventUid
| extend DepartmentKey = tolower(Department);
let Inside = Answers
| join kind=inner (Walled) on DepartmentKey
| summarize FirstTime = min(EventTime) by AITenantId, ResponseHash, Barrier = DepartmentKey, BarrierOwner;
Answers
| join kind=inner (Inside) on AITenantId, ResponseHash
| where DepartmentKey != Barrier and EventTime > FirstTime
| project EventTime, AITenantId, UserId, Department, Barrier, BarrierOwner, App, Model, ResponseHash, EventUid
| sort by EventTime desc""",
        ("Collection", "Exfiltration"),
        ("T1213",),
        (_USER, ("CloudApplication", "Name", "App")),
    ),
    Hunt(
        "RiskyPeopleAndModels",
        "People with unusual behavior elsewhere who also attack or leak here",
        "Microsoft's behavior analytics (investigation priority of 5 or more) beside prompts that were judged"
        " suspicious or answers that leaked, by the same person within the range.",
        """\
let Unusual = BehaviorAnalytics
| where InvestigationPriority >= 5 and isnotempty(UserPrincipalName)
| summarize Priority = max(InvestigationPriority), Activities = make_set(ActivityType, 20)
    by UserKey = tolower(UserPrincipalName);
AIAudit_CL
| where InjectionTier in ("suspicious", "high") or LeakageCount > 0
| summarize arg_max(TimeGenerated, *) by EventUid
| extend UserKey = tolower(iff(UserEmail has "@", UserEmail, UserId))
| summarize Attacks = countif(InjectionTier == "high"), Leaks = countif(LeakageCount > 0),
    LastTime = max(EventTime), UserId = take_any(UserId), SrcIp = take_any(SrcIp) by AITenantId, UserKey
| join kind=inner (Unusual) on UserKey
| project LastTime, AITenantId, UserId, SrcIp, Attacks, Leaks, Priority, Activities
| sort by Priority desc, Attacks desc""",
        ("InitialAccess", "Exfiltration"),
        ("T1567",),
        (_USER, _ADDRESS),
        ("BehaviorAnalytics",),
    ),
    Hunt(
        "DefenderAlertsBesideEvents",
        "Alerts of Defender for AI beside the accesses around them",
        "What Microsoft Defender for AI found, with what was asked of the same resource within ten minutes: who it was,"
        " through which application, and what our classifier says of it.",
        """\
let Found = SecurityAlert
| where AlertType startswith "AI." or AlertName has "AI.Azure_"
| summarize arg_max(TimeGenerated, *) by SystemAlertId
| extend ResourceKey = tolower(extract("(/subscriptions/[^\\"]+/accounts/[^\\"/]+)", 1, Entities))
| where isnotempty(ResourceKey)
| project SystemAlertId, AlertName, AlertTime = StartTime, ResourceKey;
AIAudit_CL
| where CloudProvider == "azure" and ActionKind == "inference"
| summarize arg_max(TimeGenerated, *) by EventUid
| extend ResourceKey = tolower(extract("(?i)(/subscriptions/.+/accounts/[^/]+)", 1, ResourceId))
| join kind=inner (Found) on ResourceKey
| where EventTime between ((AlertTime - 10m) .. (AlertTime + 10m))
| project EventTime, AlertTime, AlertName, SystemAlertId, AITenantId, UserId, App, SrcIp, Model, InjectionTier,
    LeakageTypes, OutcomeStatus, EventUid
| sort by AlertTime desc, EventTime asc""",
        ("InitialAccess",),
        ("T1190",),
        (_USER, _ADDRESS, ("CloudApplication", "Name", "App")),
        ("SecurityAlert",),
    ),
    Hunt(
        "LedgerNumbersMissing",
        "Numbers of the ledger that are missing here",
        "Each proven event has a number in its tenant's ledger. Gaps in the range are events that were removed, never"
        " sent, or are not shipped to this workspace by choice: aitrail sentinel verify tells them apart.",
        """\
AIAudit_CL
| where isnotnull(LedgerIndex)
| distinct AITenantId, LedgerIndex, EventTime, EventUid
| sort by AITenantId asc, LedgerIndex asc
| extend Before = prev(LedgerIndex), Same = prev(AITenantId) == AITenantId
| where Same and LedgerIndex - Before > 1
| project EventTime, AITenantId, FirstMissing = Before + 1, LastMissing = LedgerIndex - 1,
    Missing = LedgerIndex - Before - 1, NextEvent = EventUid
| sort by Missing desc""",
        ("DefenseEvasion",),
        ("T1562.008",),
        (("CloudApplication", "Name", "AITenantId"),),
    ),
    Hunt(
        "CheckpointsThatShrink",
        "Checkpoints of the ledger that shrink or change",
        "A tenant's ledger only grows, and one size has one root. Anything else here is a ledger that was rebuilt, or"
        " two of them: keep both notes, they are signed.",
        """\
AIAuditCheckpoints_CL
| summarize arg_max(TimeGenerated, *) by EventUid
| sort by Origin asc, EventTime asc
| extend Same = prev(Origin) == Origin, SizeBefore = prev(Size), RootBefore = prev(Root)
| where Same and (Size < SizeBefore or (Size == SizeBefore and Root != RootBefore))
| project EventTime, AITenantId, Origin, SizeBefore, Size, RootBefore, Root""",
        ("DefenseEvasion",),
        ("T1562.008",),
        (("CloudApplication", "Name", "Origin"),),
    ),
)


def own_title(hunt: Hunt) -> str:
    """Its name."""
    return f"AI access: {hunt.title}"


def as_yaml_hunt(hunt: Hunt) -> dict[str, Any]:
    """The form of the public repository."""
    table = "AIAuditCheckpoints_CL" if "AIAuditCheckpoints_CL" in hunt.query else "AIAudit_CL"
    return {
        "id": hunt.id,
        "name": own_title(hunt),
        "description": hunt.about,
        "requiredDataConnectors": [{"connectorId": PUSH_CONNECTOR, "dataTypes": [table]}],
        "tactics": list(hunt.tactics),
        "relevantTechniques": list(hunt.techniques),
        "query": hunt.query,
        "entityMappings": [
            {"entityType": entity, "fieldMappings": [{"identifier": identifier, "columnName": column}]}
            for entity, identifier, column in hunt.entities
        ],
        "version": CONTENT_VERSION,
    }
