"""Two playbooks, run on an incident: tell people, and put what is known of the accounts beside it.

Both read the incident with the managed identity of their Logic App. What comes from an incident is never part of a
query: an account's name enters the query base64-encoded, which no value can leave. Neither sends or writes text of
prompts or answers. The notification's address is a secret parameter, and hidden in the run history.

Facts (Microsoft Learn, "Workflow Definition Language schema", "Microsoft Sentinel connector", "Azure Monitor Logs
connector", "Secure access and data in Azure Logic Apps"); the paths of the two connectors are those that their designer
writes.
"""

from typing import Any

from msgspec import Struct

from aitrail.compiler.emit.sentinel_facts import DATE, DOCS, resource, template

_DEFINITION = (
    "https://schema.management.azure.com/providers/Microsoft.Logic/schemas/2016-06-01/workflowdefinition.json#"
)
_INCIDENT = "triggerBody()?['object']"
_DAYS, _ACCOUNTS = 7, 5


class Playbook(Struct, frozen=True):
    """A Logic App with its connections.

    Attributes:
        after: what a person does once it is deployed.
        needs: roles of its identity, each with the place.
    """

    name: str
    title: str
    about: str
    needs: tuple[tuple[str, str], ...]
    connections: tuple[str, ...]
    parameters: dict[str, Any]
    secrets: dict[str, str]
    actions: dict[str, Any]
    entities: tuple[str, ...] = ()


def _connection(name: str) -> dict[str, Any]:
    return {"connection": {"name": f"@parameters('$connections')['{name}']['connectionId']"}}


def _sentinel(path: str, body: Any, after: dict[str, list[str]] | None = None) -> dict[str, Any]:
    return {
        "type": "ApiConnection",
        "runAfter": after or {},
        "inputs": {"host": _connection("azuresentinel"), "method": "post", "path": path, "body": body},
    }


def _comment(message: str, after: dict[str, list[str]]) -> dict[str, Any]:
    return _sentinel("/Incidents/Comment", {"incidentArmId": f"@{_INCIDENT}?['id']", "message": message}, after)


def _notify() -> Playbook:
    said = {
        "title": f"@{_INCIDENT}?['properties']?['title']",
        "severity": f"@{_INCIDENT}?['properties']?['severity']",
        "status": f"@{_INCIDENT}?['properties']?['status']",
        "number": f"@{_INCIDENT}?['properties']?['incidentNumber']",
        "created": f"@{_INCIDENT}?['properties']?['createdTimeUtc']",
        "tactics": f"@{_INCIDENT}?['properties']?['additionalData']?['tactics']",
        "alerts": f"@{_INCIDENT}?['properties']?['additionalData']?['alertsCount']",
        "url": f"@{_INCIDENT}?['properties']?['incidentUrl']",
        "source": "aitrail",
    }
    post = {
        "type": "Http",
        "runAfter": {},
        "inputs": {
            "method": "POST",
            "uri": "@parameters('notificationUrl')",
            "headers": {"Content-Type": "application/json"},
            "body": said,
            "retryPolicy": {"type": "exponential", "count": 4, "interval": "PT10S", "maximumInterval": "PT5M"},
        },
        # The address is a secret: it carries the right to post.
        "runtimeConfiguration": {"secureData": {"properties": ["inputs"]}},
    }
    failed = _comment("<p>aitrail-Notify could not post this incident. See the playbook's run history.</p>", {})
    return Playbook(
        name="aitrail-Notify",
        title="aitrail: notify about an incident",
        about="Posts title, severity, tactics and link of an incident as JSON to an address of yours (a Teams or Slack"
        " workflow, a pager), and says in the incident that it did. No content of prompts or answers is sent.",
        needs=(("Microsoft Sentinel Responder", "the workspace's resource group"),),
        connections=("azuresentinel",),
        parameters={
            "NotificationUrl": {
                "type": "securestring",
                "metadata": {"description": "HTTPS address that takes the JSON; whoever knows it can post there"},
            }
        },
        secrets={"notificationUrl": "NotificationUrl"},
        actions={
            "Post_notification": post,
            "Comment_that_it_was_sent": _comment(
                "<p>aitrail-Notify told the address that its parameter names.</p>", {"Post_notification": ["Succeeded"]}
            ),
            "Comment_that_it_failed": {**failed, "runAfter": {"Post_notification": ["Failed", "TimedOut"]}},
        },
    )


def query() -> str:
    """What is known of one account; ``@{...}`` is the only thing that is put in, and it is base64."""
    name = "@{base64(coalesce(items('For_each_account')?['Name'], items('For_each_account')?['FullName'], '-'))}"
    return "\n".join(
        [
            f'let Account = base64_decode_tostring("{name}");',
            f"let Since = ago({_DAYS}d);",
            "let Owners = _GetWatchlist('AitrailOwners')",
            "| project AppKey = tolower(tostring(App)), AppOwner = tostring(Owner);",
            "AIAudit_CL",
            "| where TimeGenerated >= Since and EventTime >= Since",
            '| where UserId =~ Account or UserName =~ Account or UserId startswith strcat(Account, "@")',
            "| summarize arg_max(TimeGenerated, *) by EventUid",
            "| extend AppKey = tolower(App)",
            "| join kind=leftouter (Owners) on AppKey",
            (
                '| summarize Calls = countif(ActionKind == "inference"),'
                ' Privileged = countif(ActionKind in ("admin", "guardrail", "auth", "weights", "data")),'
                ' Denied = countif(OutcomeStatus in ("denied", "blocked")), Attacks = countif(InjectionTier == "high"),'
                " Leaks = countif(LeakageCount > 0), Addresses = dcount(SrcIp), Keys = dcount(CredentialId),"
                " First = min(EventTime), Last = max(EventTime), Owner = take_any(AppOwner)"
                " by UserId, Tenant = AITenantId, Department, App, Model"
            ),
            "| sort by Attacks desc, Leaks desc, Calls desc",
            "| take 20",
        ]
    )


def _enrich() -> Playbook:
    resources = {
        "subscriptions": "@parameters('subscriptionId')",
        "resourcegroups": "@parameters('resourceGroup')",
        "resourcename": "@parameters('workspaceName')",
        "resourcetype": "Log Analytics Workspace",
        "timerange": "Set in query",
    }
    ask = {
        "type": "ApiConnection",
        "runAfter": {},
        "inputs": {
            "host": _connection("azuremonitorlogs"),
            "method": "post",
            "path": "/queryData",
            "queries": resources,
            "body": query(),
        },
    }
    table = {
        "type": "Table",
        "runAfter": {"Ask_for_the_account": ["Succeeded"]},
        "inputs": {"from": "@body('Ask_for_the_account')?['value']", "format": "HTML"},
    }
    write = _comment(
        f"<p>aitrail: what the account did with AI systems in the last {_DAYS} days</p>@{{body('As_a_table')}}",
        {"As_a_table": ["Succeeded"]},
    )
    loop = {
        "type": "Foreach",
        "runAfter": {"Accounts_of_the_incident": ["Succeeded"]},
        "foreach": f"@take(body('Accounts_of_the_incident')?['Accounts'], {_ACCOUNTS})",
        "runtimeConfiguration": {"concurrency": {"repetitions": 1}},
        "actions": {"Ask_for_the_account": ask, "As_a_table": table, "Comment_with_the_table": write},
    }
    return Playbook(
        name="aitrail-Enrich",
        title="aitrail: what the accounts of an incident did with AI systems",
        about=f"Adds, for each account of an incident (at most {_ACCOUNTS}), a table of its last {_DAYS} days: calls,"
        " privileged acts, refusals, attacks, leaks, addresses and keys by application and model, and who owns the"
        " application. Numbers and names only, no text of prompts or answers.",
        needs=(
            ("Microsoft Sentinel Responder", "the workspace's resource group"),
            ("Log Analytics Reader", "the workspace"),
        ),
        connections=("azuresentinel", "azuremonitorlogs"),
        parameters={
            "WorkspaceName": {"type": "string", "metadata": {"description": "Workspace with Microsoft Sentinel"}},
            "WorkspaceResourceGroup": {
                "type": "string",
                "defaultValue": "[resourceGroup().name]",
                "metadata": {"description": "Resource group of the workspace"},
            },
        },
        secrets={},
        actions={
            "Accounts_of_the_incident": _sentinel(
                "/entities/account", f"@{_INCIDENT}?['properties']?['relatedEntities']"
            ),
            "For_each_account": loop,
        },
        entities=("account",),
    )


def playbooks() -> tuple[Playbook, ...]:
    """All of them."""
    return _notify(), _enrich()


def _api(name: str) -> str:
    return (
        "[concat('/subscriptions/', subscription().subscriptionId, '/providers/Microsoft.Web/locations/',"
        f" resourceGroup().location, '/managedApis/{name}')]"
    )


def _connections(one: Playbook) -> dict[str, Any]:
    return {
        "value": {
            name: {
                "connectionId": f"[resourceId('Microsoft.Web/connections', variables('{name}'))]",
                "connectionName": f"[variables('{name}')]",
                "id": _api(name),
                "connectionProperties": {"authentication": {"type": "ManagedServiceIdentity"}},
            }
            for name in one.connections
        }
    }


def _workflow_parameters(one: Playbook) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the definition declares, and what the resource gives it."""
    declared: dict[str, Any] = {"$connections": {"type": "Object", "defaultValue": {}}}
    given: dict[str, Any] = {"$connections": _connections(one)}
    for inner, outer in one.secrets.items():
        declared[inner] = {"type": "SecureString"}
        given[inner] = {"value": f"[parameters('{outer}')]"}
    if "azuremonitorlogs" in one.connections:
        values = {
            "subscriptionId": "[subscription().subscriptionId]",
            "resourceGroup": "[parameters('WorkspaceResourceGroup')]",
            "workspaceName": "[parameters('WorkspaceName')]",
        }
        declared |= {name: {"type": "String"} for name in values}
        given |= {name: {"value": value} for name, value in values.items()}
    return declared, given


def azuredeploy(one: Playbook) -> dict[str, Any]:
    """The template of one playbook."""
    declared, given = _workflow_parameters(one)
    made = [
        resource(
            "Microsoft.Web/connections",
            f"[variables('{name}')]",
            location="[resourceGroup().location]",
            kind="V1",
            properties={
                "displayName": f"[variables('{name}')]",
                "customParameterValues": {},
                "parameterValueType": "Alternative",
                "api": {"id": _api(name)},
            },
        )
        for name in one.connections
    ]
    made.append(
        resource(
            "Microsoft.Logic/workflows",
            "[parameters('PlaybookName')]",
            location="[resourceGroup().location]",
            tags={"hidden-SentinelTemplateName": one.name, "hidden-SentinelTemplateVersion": "1.0"},
            identity={"type": "SystemAssigned"},
            dependsOn=[f"[resourceId('Microsoft.Web/connections', variables('{name}'))]" for name in one.connections],
            properties={
                "state": "Enabled",
                "definition": {
                    "$schema": _DEFINITION,
                    "contentVersion": "1.0.0.0",
                    "parameters": declared,
                    "triggers": {
                        "Microsoft_Sentinel_incident": {
                            "type": "ApiConnectionWebhook",
                            "inputs": {
                                "body": {"callback_url": "@{listCallbackUrl()}"},
                                "host": _connection("azuresentinel"),
                                "path": "/incident-creation",
                            },
                        }
                    },
                    "actions": one.actions,
                    "outputs": {},
                },
                "parameters": given,
            },
        )
    )
    roles = [f"{role} on {place}" for role, place in one.needs]
    return template(
        made,
        {"PlaybookName": {"type": "string", "defaultValue": one.name}, **one.parameters},
        variables={name: f"[concat('{name}-', parameters('PlaybookName'))]" for name in one.connections},
        metadata={
            "title": one.title,
            "description": one.about,
            "prerequisites": ["The solution's connector is connected", f"See {DOCS}/install-sentinel.md"],
            "postDeployment": [f"Give the playbook's managed identity: {'; '.join(roles)}"],
            "prerequisitesDeployTemplateFile": "",
            "lastUpdateTime": f"{DATE}T00:00:00.000Z",
            "entities": list(one.entities),
            "tags": ["Notification" if "Notify" in one.name else "Enrichment"],
            "support": {"tier": "community"},
            "author": {"name": "aitrail"},
            "releaseNotes": [{"version": "1.0.0", "title": one.title, "notes": ["Initial version"]}],
        },
    )
