"""The two pages under Data connectors: push (one click makes rule, tables and identity), and the function app.

Facts (Microsoft Learn, "Create a push connector with the Codeless Connector Framework"; the public repository's schema
of function connectors): ``CopyableLabel`` shows what the deployment gave, ``fillWith`` names it; the rule of a push
connector belongs to the workspace's data collection endpoint. ``[[`` defers an expression to the inner deployment.
"""

from typing import Any

from aitrail.compiler.emit.sentinel_facts import DOCS, FUNCTION_CONNECTOR, PUSH_CONNECTOR, SOURCE
from aitrail.compiler.emit.sentinel_tables import rule_properties, table, tables

PUSH_RULE = "AitrailPushDCR"
PUSH_STREAM = "Custom-AIAudit_CL"
LOGO = "aitrail.svg"
_LOGO_HTML = f'<img src="{SOURCE.replace("github.com", "raw.githubusercontent.com")}/main/sentinel_workbooks/Logos/{LOGO}" width="75px" height="75px">'  # noqa: E501
_ENDPOINT = (
    "[concat('/subscriptions/', parameters('subscription'), '/resourceGroups/', parameters('resourceGroupName'),"
    " '/providers/Microsoft.Insights/dataCollectionEndpoints/', parameters('workspace'))]"
)
_ABOUT = (
    f"The collector [aitrail]({SOURCE}) records every access to AI systems - who, to which model, weights or data,"
    " what was asked, what came back - as one normalized and classified event, and sends it with the Logs Ingestion"
    " API."
)
_STREAMS = (
    ("Accesses", "AIAudit_CL"),
    ("Findings", "AIAuditFindings_CL"),
    ("Health of collectors", "AIAuditHealth_CL"),
    ("Checkpoints of the ledger", "AIAuditCheckpoints_CL"),
)
_SAMPLES = (
    ("Who used which model", "AIAudit\n| summarize Calls = count() by UserId, Model\n| sort by Calls desc"),
    ("Attacks in prompts", 'AIAudit\n| where InjectionTier == "high"\n| project EventTime, UserId, App, Model'),
    ("What the collector says of itself", "AIAuditHealth_CL\n| summarize arg_max(EventTime, *) by Collector, Name"),
)
_SETTINGS = """[destinations.sentinel]
type = "sentinel"
url = "<Data Collection Endpoint Uri>"
dcr = "<Data Collection Rule Immutable ID>"
"""


def logo_html() -> str:
    """The picture, as descriptions and packages show it."""
    return _LOGO_HTML


def _last(name: str) -> str:
    return f"{name}\n| summarize Time = max(TimeGenerated)\n| where isnotempty(Time)"


def _connected() -> str:
    return "AIAudit_CL\n| summarize Last = max(TimeGenerated)\n| project IsConnected = Last > ago(7d)"


def _common(connector: str, title: str) -> dict[str, Any]:
    return {
        "id": connector,
        "title": title,
        "publisher": "aitrail",
        "descriptionMarkdown": _ABOUT,
        "graphQueries": [
            {"metricName": f"{label} received", "legend": name, "baseQuery": name} for label, name in _STREAMS
        ],
        "sampleQueries": [{"description": text, "query": query} for text, query in _SAMPLES],
        "dataTypes": [{"name": name, "lastDataReceivedQuery": _last(name)} for _, name in _STREAMS],
    }


_WORKSPACE_ACCESS = {
    "provider": "Microsoft.OperationalInsights/workspaces",
    "permissionsDisplayText": "read and write permissions are required.",
    "providerDisplayName": "Workspace",
    "scope": "Workspace",
    "requiredPermissions": {"write": True, "read": True, "delete": True},
}


def _label(label: str, **rest: Any) -> dict[str, Any]:
    return {"type": "CopyableLabel", "parameters": {"label": label, **rest}}


def _filled(label: str, name: str) -> dict[str, Any]:
    return _label(label, fillWith=[name], placeholder="Deploy the connector's resources first")


def _markdown(text: str) -> dict[str, Any]:
    return {"type": "Markdown", "parameters": {"content": text}}


def push_definition() -> dict[str, Any]:
    """``connectorUiConfig`` of the push connector."""
    steps = [
        {
            "title": "1. Make the tables, the data collection rule and the identity",
            "description": "Deploy makes the tables, a data collection rule and an Entra application that may send to"
            " this rule and do nothing else.",
            "instructions": [
                _markdown(
                    "You need the Entra role *Application Developer* and, on the resource group, *Owner* or"
                    " *User Access Administrator*. Keep the secret: it is shown once."
                ),
                {
                    "type": "DeployPushConnectorButton",
                    "parameters": {
                        "label": "Deploy aitrail connector resources",
                        "applicationDisplayName": "aitrail collector",
                    },
                },
            ],
        },
        {
            "title": "2. Tell the collector where to send",
            "description": "The first three are the collector's identity (AZURE_TENANT_ID, AZURE_CLIENT_ID,"
            " AZURE_CLIENT_SECRET in its environment), the next two its settings.",
            "instructions": [
                _label("Tenant ID (AZURE_TENANT_ID)", fillWith=["TenantId"]),
                _filled("Application ID (AZURE_CLIENT_ID)", "ApplicationId"),
                _filled("Application Secret (AZURE_CLIENT_SECRET)", "ApplicationSecret"),
                _filled("Data Collection Endpoint Uri (url)", "DataCollectionEndpoint"),
                _filled("Data Collection Rule Immutable ID (dcr)", "DataCollectionRuleId"),
                _label("Stream of accesses", value=PUSH_STREAM),
                _markdown(f"aitrail.toml:\n\n```toml\n{_SETTINGS}```\n\nThen `aitrail check` and `aitrail run`."),
                _markdown(f"All of it, step by step: [install-sentinel.md]({DOCS}/install-sentinel.md)."),
            ],
        },
    ]
    return {
        **_common(PUSH_CONNECTOR, "aitrail AI access audit (push)"),
        "logo": LOGO,
        "connectivityCriteria": [{"type": "IsConnectedQuery", "value": [_connected()]}],
        "availability": {"status": 1, "isPreview": False},
        "permissions": {
            "resourceProvider": [_WORKSPACE_ACCESS],
            "customs": [
                {"name": "Microsoft Entra", "description": "Permission to register an application."},
                {
                    "name": "Microsoft Azure",
                    "description": "Permission to give the role Monitoring Metrics Publisher on the rule.",
                },
            ],
        },
        "instructionSteps": steps,
    }


def push_connection() -> dict[str, Any]:
    """The properties of the connection that Deploy makes."""
    return {
        "connectorDefinitionName": PUSH_CONNECTOR,
        "dcrConfig": {
            "streamName": PUSH_STREAM,
            "dataCollectionEndpoint": "[[parameters('dcrConfig').dataCollectionEndpoint]",
            "dataCollectionRuleImmutableId": "[[parameters('dcrConfig').dataCollectionRuleImmutableId]",
        },
        "auth": {
            "type": "Push",
            "AppId": "[[parameters('auth').appId]",
            "ServicePrincipalId": "[[parameters('auth').servicePrincipalId]",
        },
        "request": {"RetryCount": 1},
        "response": {"eventsJsonPaths": ["$"]},
    }


def push_rule() -> dict[str, Any]:
    """The data collection rule of the push connector, as a resource inside the connector's template."""
    return {
        "name": PUSH_RULE,
        "apiVersion": "2022-06-01",
        "type": "Microsoft.Insights/dataCollectionRules",
        "location": "[parameters('workspace-location')]",
        "kind": "[variables('blanks')]",
        "properties": {**rule_properties("[variables('workspaceResourceId')]"), "dataCollectionEndpointId": _ENDPOINT},
    }


def push_tables() -> list[dict[str, Any]]:
    """Its tables."""
    return [
        {
            "name": name,
            "apiVersion": "2022-10-01",
            "type": "Microsoft.OperationalInsights/workspaces/tables",
            "location": "[parameters('workspace-location')]",
            "properties": table(name, listed),
        }
        for name, listed in tables().items()
    ]


def function_page() -> dict[str, Any]:
    """The page of the function app: it is deployed by its own template, this page says how."""
    steps = [
        {
            "title": "",
            "description": ">**NOTE:** The function app is billed by use. "
            f"[deploy-azure.md]({DOCS}/deploy-azure.md) measures it and gives the formula.",
        },
        {
            "title": "STEP 1 - Let the AI services write to an event hub",
            "description": "A diagnostic setting on each Azure OpenAI account (Audit, RequestResponse,"
            " AzureOpenAIRequestUsage) and on API Management (GatewayLogs, GatewayLlmLogs), with an event hub as its"
            " destination.",
        },
        {
            "title": "STEP 2 - Deploy the function app",
            "description": "Both templates make the tables, the data collection rule (kind Direct), the app, its"
            " managed identity and the roles it needs, and nothing else. There is no key to copy.\n\n"
            f"- Flex Consumption: [azuredeploy.flex.json]({SOURCE}/blob/main/deploy/azure/azuredeploy.flex.json)\n"
            f"- Premium: [azuredeploy.premium.json]({SOURCE}/blob/main/deploy/azure/azuredeploy.premium.json)\n\n"
            "```\naz deployment group create --resource-group ai-audit \\\n"
            "  --template-file deploy/azure/azuredeploy.flex.json \\\n"
            "  --parameters workspaceName=<workspace> eventHubNamespace=<namespace> createEventHub=true \\\n"
            "               hashKey=$(openssl rand -hex 32)\n```",
        },
        {
            "title": "STEP 3 - Deploy the package",
            "description": "```\n"
            "aitrail package function --sources event_hubs --destinations sentinel --out aitrail.zip"
            "\naz functionapp deployment source config-zip --resource-group ai-audit --src aitrail.zip --name <app>\n"
            "```\n\n"
            f"Each permission, alert and setting is explained in [deploy-azure.md]({DOCS}/deploy-azure.md).",
        },
    ]
    return {
        **_common(FUNCTION_CONNECTOR, "aitrail AI access audit (Azure Functions)"),
        "connectivityCriterias": [{"type": "IsConnectedQuery", "value": [_connected()]}],
        "availability": {"status": 1, "isPreview": False},
        "permissions": {
            "resourceProvider": [_WORKSPACE_ACCESS],
            "customs": [
                {
                    "name": "Microsoft.Web/sites permissions",
                    "description": "Read and write permissions to Azure Functions are required to make a function app."
                    " [Azure Functions](https://learn.microsoft.com/azure/azure-functions/)",
                },
                {
                    "name": "Roles",
                    "description": "Owner, or Contributor and User Access Administrator, on the resource group: the"
                    " template gives roles to the app's identity.",
                },
            ],
        },
        "instructionSteps": steps,
        "metadata": {
            "version": "1.0.0",
            "kind": "dataConnector",
            "source": {"kind": "solution", "name": "aitrail"},
            "author": {"name": "aitrail"},
            "support": {"name": "aitrail", "tier": "Community", "link": f"{SOURCE}/issues"},
        },
    }
