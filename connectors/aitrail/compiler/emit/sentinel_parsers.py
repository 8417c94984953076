"""Functions of the workspace: each access once, and the same accesses as ASIM AgentEvent.

ASIM's columns are the catalog's. Prompts and answers stay out of the normalized view: ``EventOriginalRequestDetails``
would hand them to everything that reads all agents' events. What the schema has no column for is in
``AdditionalFields``, when it is asked for (``pack``). Columns have the schema's types: another type would split them in
a union with other parsers.
"""

from typing import Any

from msgspec import Struct

from aitrail.compiler.dialects.kql import column
from aitrail.compiler.emit.sentinel_facts import DATE, DOCS, guid
from aitrail.schema.catalog import FieldInfo, fields
from aitrail.schema.views.kusto import TABLE

SCHEMA_VERSION = "0.1.0"
_BAG = "AdditionalFields"
_TEXTS = ("prompt_text", "response_text")
# Columns that are not a field's value as it is.
_OWN = {
    "EventType": 'coalesce(ActionKind, "unknown")',
    "EventResult": (
        'case(OutcomeStatus == "success", "Success", OutcomeStatus in ("blocked", "denied", "throttled", "error"),'
        ' "Failure", "NA")'
    ),
    "EventVendor": 'iff(isempty(Service), "aitrail", Service)',
    "EventErrorDetails": "tostring(HttpStatus)",
    "ActorUserAdditionalIds": "iff(isempty(UserEmail), dynamic([]), pack_array(UserEmail))",
    "EventFinishReasons": "iff(isempty(FinishReason), dynamic([]), pack_array(FinishReason))",
}
_CONSTANTS = {
    "EventEndTime": "EventTime",
    "EventCount": "toint(1)",
    "EventSchema": '"AgentEvent"',
    "EventSchemaVersion": f'"{SCHEMA_VERSION}"',
    "EventResultDetails": "OutcomeStatus",
    "ActorUserIdType": 'iff(isempty(UserId), "", "Other")',
    "ActorUsernameType": 'case(isempty(UserName), "", UserName has "@", "UPN", "Simple")',
}


class Parameter(Struct, frozen=True):
    """Of a function: name, KQL type and what it is when left out."""

    name: str
    type: str
    default: str


class Parser(Struct, frozen=True):
    """A function of the workspace."""

    name: str
    title: str
    about: str
    parameters: tuple[Parameter, ...]
    query: str
    asim: bool = False

    @property
    def id(self) -> str:
        """Its identity in the package."""
        return guid("parser", self.name)

    @property
    def signature(self) -> str:
        """``functionParameters``."""
        return ", ".join(f"{one.name}:{one.type}={one.default}" for one in self.parameters)


_RANGE = (Parameter("starttime", "datetime", "datetime(null)"), Parameter("endtime", "datetime", "datetime(null)"))
_DISABLED, _PACK = Parameter("disabled", "bool", "false"), Parameter("pack", "bool", "false")
_LISTS = tuple(
    Parameter(name, "dynamic", "dynamic([])") for name in ("agentid_has_any", "agentname_has_any", "username_has_any")
)


def parsers() -> tuple[Parser, ...]:
    """All of them."""
    rows = [
        TABLE,
        "where isnull(starttime) or (TimeGenerated >= starttime and EventTime >= starttime)",
        "where isnull(endtime) or EventTime < endtime",
        "summarize arg_max(TimeGenerated, *) by EventUid",
        "project-reorder TimeGenerated, EventTime, AITenantId, UserId, App, Model, Action, OutcomeStatus",
    ]
    about = "Each access to an AI system once, however often its record was delivered"
    asim = "Accesses to AI systems as ASIM AgentEvent, without the texts of prompts and answers"
    return (
        Parser("AIAudit", "AI access audit: each access once", about, _RANGE, "\n| ".join(rows)),
        Parser(
            "ASimAgentEventAitrail", "Agent Event ASIM parser for aitrail", asim, (_DISABLED, _PACK), _normal(()), True
        ),
        Parser(
            "vimAgentEventAitrail",
            "Agent Event ASIM filtering parser for aitrail",
            asim,
            (*_RANGE, *_LISTS, _DISABLED, _PACK),
            _normal(
                (
                    "where isnull(starttime) or TimeGenerated >= starttime",
                    "where isnull(endtime) or TimeGenerated <= endtime",
                    "where array_length(agentid_has_any) == 0 or ResourceId has_any (agentid_has_any)",
                    "where array_length(agentname_has_any) == 0 or Agent has_any (agentname_has_any)",
                    (
                        "where array_length(username_has_any) == 0 or UserName has_any (username_has_any)"
                        " or UserId has_any (username_has_any)"
                    ),
                )
            ),
            True,
        ),
    )


def _normal(filters: tuple[str, ...]) -> str:
    """Filters before all else, then the columns of the schema."""
    made = dict(_CONSTANTS)
    bag: list[FieldInfo] = []
    for field in fields():
        name = field.name_in("asim")
        if field.name in _TEXTS or not name:
            continue
        if name == _BAG or name in made:
            bag.append(field)
        else:
            made[name] = _OWN.get(name, column(field))
    pairs = ", ".join(f'"{column(field)}", {column(field)}' for field in bag)
    made[_BAG] = f"iff(pack, bag_pack({pairs}), dynamic({{}}))"
    listed = ",\n    ".join(name if name == value else f"{name} = {value}" for name, value in made.items())
    stages = [TABLE, "where not(disabled)", *filters, "summarize arg_max(TimeGenerated, *) by EventUid"]
    return "\n| ".join([*stages, f'project\n    TimeGenerated,\n    Type = "{TABLE}",\n    {listed}'])


def as_function(parser: Parser) -> dict[str, Any]:
    """The YAML of a function in a solution."""
    return {
        "id": parser.id,
        "Function": {"Title": parser.title, "Version": "1.0.0", "LastUpdated": DATE},
        "Category": "Microsoft Sentinel Parser",
        "FunctionName": parser.name,
        "FunctionAlias": parser.name,
        "FunctionParams": [f"{one.name}:{one.type}={one.default}" for one in parser.parameters],
        "FunctionQuery": parser.query,
    }


def as_asim(parser: Parser) -> dict[str, Any]:
    """The YAML of a parser in ASIM's form."""
    return {
        "Parser": {"Title": parser.title, "Version": SCHEMA_VERSION, "LastUpdated": DATE},
        "Product": {"Name": "aitrail"},
        "Normalization": {"Schema": "AgentEvent", "Version": SCHEMA_VERSION},
        "References": [
            {"Title": "ASIM Agent Schema", "Link": "https://aka.ms/ASimAgentEventDoc"},
            {"Title": "Fields of aitrail", "Link": f"{DOCS}/schema.md"},
        ],
        "Description": parser.about,
        "ParserName": parser.name,
        "EquivalentBuiltInParser": parser.name.replace("vimAgentEvent", "_Im_AgentEvent_").replace(
            "ASimAgentEvent", "_ASim_AgentEvent_"
        ),
        "ParserParams": [{"Name": one.name, "Type": one.type, "Default": one.default} for one in parser.parameters],
        "ParserQuery": parser.query,
    }


def properties(parser: Parser) -> dict[str, Any]:
    """The properties of the saved search that the function is."""
    return {
        "eTag": "*",
        "displayName": parser.title,
        "category": "ASIM" if parser.asim else "Microsoft Sentinel Parser",
        "functionAlias": parser.name,
        "query": parser.query,
        "functionParameters": parser.signature,
        "version": 2,
        "tags": [{"name": "description", "value": parser.about}],
    }
