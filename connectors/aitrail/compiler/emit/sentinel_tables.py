"""Tables, streams and the data collection rule, from the catalog.

Facts (Azure Monitor, "Create a data collection rule", "Logs Ingestion API"): a rule of kind ``Direct`` has an endpoint
of its own; a stream of ours is named ``Custom-...``, and its declared columns must be those that are sent. Tables say
``boolean`` where streams and KQL say ``bool``.
"""

from typing import Any

from aitrail.compiler.emit.sentinel_facts import WORKSPACE, WORKSPACE_PARAMETERS, resource, template
from aitrail.destinations.sentinel_rows import STREAMS, record_table
from aitrail.schema.catalog import fields
from aitrail.schema.views.kusto import columns

_RULE = "Microsoft.Insights/dataCollectionRules"
# Monitoring Metrics Publisher: what may send rows to a data collection rule.
_PUBLISHER = "3913510d-42f4-4e42-8a64-420c390055eb"
_WORKSPACE_ID = f"[resourceId('{WORKSPACE}', parameters('workspace'))]"
# Twelve years, the longest that the platform keeps a table.
LONGEST_DAYS = 4383


def tables() -> dict[str, list[tuple[str, str]]]:
    """Each table of ours: columns with their KQL types."""
    found = {}
    for stream, kind in STREAMS.items():
        if stream == "agent_event":
            continue  # Sentinel's own table
        own = columns() if stream == "access" else record_table(stream)
        found[kind.table] = [(column, type_) for _, column, type_ in own]
    return found


def _typed(listed: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "type": "boolean" if kind == "bool" else kind} for name, kind in listed]


def table(name: str, listed: list[tuple[str, str]], **retention: str) -> dict[str, Any]:
    """The properties of a table."""
    return {"plan": "Analytics", **retention, "schema": {"name": name, "columns": _typed(listed)}}


def streams() -> dict[str, Any]:
    """``streamDeclarations``."""
    return {f"Custom-{name}": {"columns": _typed(listed)} for name, listed in tables().items()}


def flows(destination: str) -> list[dict[str, Any]]:
    """``dataFlows``: rows go into their tables as they are."""
    return [
        {"streams": [one], "destinations": [destination], "transformKql": "source", "outputStream": one}
        for one in streams()
    ]


# Types of ASIM AgentEvent's columns that are not text (public repository, ``vimAgentEventEmpty``).
ASIM_TYPES = {
    **dict.fromkeys(("TimeGenerated", "EventStartTime", "EventEndTime"), "datetime"),
    **dict.fromkeys(("InputTokensUsed", "OutputTokensUsed", "EventRequestSeed"), "long"),
    **dict.fromkeys(("EventCount", "SrcPortNumber"), "int"),
    **dict.fromkeys(
        ("ActorUserAdditionalIds", "EventFinishReasons", "AdditionalEntities", "AdditionalFields"), "dynamic"
    ),
}
_ASIM_ALWAYS = ("TimeGenerated", "EventEndTime", "EventCount", "EventSchema", "EventSchemaVersion", "EventVendor")
_ANOMALY_TYPES = {
    **dict.fromkeys(("TimeGenerated", "StartTime", "EndTime"), "datetime"),
    "Score": "real",
    **dict.fromkeys(("Entities", "AnomalyReasons", "AnomalyDetails", "ExtendedProperties"), "dynamic"),
}
_ANOMALY_TEXTS = (
    "Id VendorName RuleId RuleName RuleConfigVersion RuleStatus AnomalyTemplateId AnomalyTemplateName"
    " AnomalyTemplateVersion Description Tactics Techniques UserName UserPrincipalName SourceIpAddress"
)


def microsoft_streams() -> dict[str, list[tuple[str, str]]]:
    """The columns that are sent for Microsoft's own tables, by table."""
    named = (field.name_in("asim") for field in fields())
    agent = dict.fromkeys([*_ASIM_ALWAYS, *(name for name in named if name), "AdditionalFields"])
    anomaly = dict.fromkeys([*_ANOMALY_TYPES, *_ANOMALY_TEXTS.split()])
    return {
        "ASimAgentEventLogs": [(name, ASIM_TYPES.get(name, "string")) for name in agent],
        "Anomalies": [(name, _ANOMALY_TYPES.get(name, "string")) for name in anomaly],
    }


def _chosen(name: str) -> dict[str, str]:
    """Streams and flows of ours, and of Microsoft's tables where a parameter asks for them."""
    wished = [f"if(parameters('{wish}'), variables('{name}-{one}'), {_EMPTY[name]})" for wish, one in _WISHED.items()]
    return {name: f"[{_JOINED[name]}(variables('{name}'), {', '.join(wished)})]"}


_WISHED = {"agentEvents": "ASimAgentEventLogs", "anomalies": "Anomalies"}
_EMPTY = {"streamDeclarations": "createObject()", "dataFlows": "createArray()"}
_JOINED = {"streamDeclarations": "union", "dataFlows": "concat"}


def _variables() -> dict[str, Any]:
    made: dict[str, Any] = {"streamDeclarations": streams(), "dataFlows": flows("workspace")}
    for name, listed in microsoft_streams().items():
        made[f"streamDeclarations-{name}"] = {f"Custom-{name}": {"columns": _typed(listed)}}
        made[f"dataFlows-{name}"] = [
            {
                "streams": [f"Custom-{name}"],
                "destinations": ["workspace"],
                "transformKql": "source",
                "outputStream": f"Microsoft-{name}",
            }
        ]
    return made


def rule_properties(workspace_id: str) -> dict[str, Any]:
    """The properties of the data collection rule."""
    return {
        "streamDeclarations": streams(),
        "destinations": {"logAnalytics": [{"workspaceResourceId": workspace_id, "name": "workspace"}]},
        "dataFlows": flows("workspace"),
    }


def collection() -> dict[str, Any]:
    """``deploy/collection.json``: the tables, a rule with its own endpoint, and who may send to it."""
    kept = {"retentionInDays": "[parameters('retentionInDays')]"}
    total = {"totalRetentionInDays": "[parameters('totalRetentionInDays')]"}
    made = [
        resource(
            f"{WORKSPACE}/tables",
            f"[concat(parameters('workspace'), '/{name}')]",
            properties=table(name, listed, **kept, **total),
        )
        for name, listed in tables().items()
    ]
    rule_id = f"[resourceId('{_RULE}', parameters('ruleName'))]"
    made.append(
        resource(
            _RULE,
            "[parameters('ruleName')]",
            location="[parameters('location')]",
            kind="Direct",
            dependsOn=[f"[resourceId('{WORKSPACE}/tables', parameters('workspace'), '{name}')]" for name in tables()],
            properties={
                "description": "aitrail: rows of the Logs Ingestion API into the tables of the catalog, as they are",
                **rule_properties(_WORKSPACE_ID),
                **_chosen("streamDeclarations"),
                **_chosen("dataFlows"),
            },
        )
    )
    role = "[guid(resourceGroup().id, parameters('ruleName'), parameters('principalId'))]"
    made.append(
        resource(
            "Microsoft.Authorization/roleAssignments",
            role,
            condition="[not(empty(parameters('principalId')))]",
            scope=f"[concat('{_RULE}/', parameters('ruleName'))]",
            dependsOn=[rule_id],
            properties={
                "roleDefinitionId": (
                    f"[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '{_PUBLISHER}')]"
                ),
                "principalId": "[parameters('principalId')]",
                "principalType": "ServicePrincipal",
            },
        )
    )
    reference = f"reference(resourceId('{_RULE}', parameters('ruleName')), '{made[-2]['apiVersion']}')"
    return template(
        made,
        {
            **WORKSPACE_PARAMETERS,
            "ruleName": {"type": "string", "defaultValue": "aitrail"},
            "principalId": {
                "type": "string",
                "defaultValue": "",
                "metadata": {"description": "Object id of who sends (managed identity or enterprise application)"},
            },
            "agentEvents": {
                "type": "bool",
                "defaultValue": False,
                "metadata": {"description": "Whether the rule also takes ASIM AgentEvent (stream = agent_event)"},
            },
            "anomalies": {
                "type": "bool",
                "defaultValue": False,
                "metadata": {"description": "Whether the rule also takes findings as anomalies (findings = anomalies)"},
            },
            "retentionInDays": {"type": "int", "defaultValue": 90, "minValue": 4, "maxValue": 730},
            "totalRetentionInDays": {"type": "int", "defaultValue": 365, "minValue": 4, "maxValue": LONGEST_DAYS},
        },
        variables=_variables(),
        outputs={
            "url": {"type": "string", "value": f"[{reference}.endpoints.logsIngestion]"},
            "dcr": {"type": "string", "value": f"[{reference}.immutableId]"},
        },
        metadata={"description": "aitrail: tables and data collection rule for Microsoft Sentinel"},
    )
