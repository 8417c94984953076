"""The ARM templates: what they give to whom, that nothing of them is stale, unused or loose."""

import contextlib
import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aitrail.destinations.sentinel_rows import STREAMS, record_table
from aitrail.runtime.scheduled.azure_line import Line
from aitrail.schema.views.kusto import RESERVED, columns

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "azure"
PLANS = ("flex", "premium")
CONTAINER = "Microsoft.Storage/storageAccounts/blobServices/containers"
GRANT = "Microsoft.Authorization/roleAssignments"
# Every right that the app's identity gets: role, its id, the type of the resource, the resource. Wider is wrong.
GRANTS = {
    ("Monitoring Metrics Publisher", "3913510d-42f4-4e42-8a64-420c390055eb", "variables('ruleId')"),
    (
        "Storage Blob Data Contributor",
        "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
        f"resourceId('{CONTAINER}', variables('stateStorage'), 'default', 'aitrail')",
    ),
    (
        "Key Vault Secrets User",
        "4633458b-17de-408a-b874-0445c86b69e6",
        "resourceId('Microsoft.KeyVault/vaults', variables('vaultName'))",
    ),
    ("Storage Blob Data Owner", "b7e6dc6d-f1e8-4753-8033-0f276bb0955b", "variables('hostStorageId')"),
    (
        "Azure Event Hubs Data Receiver",
        "a638d3c7-ab3a-418d-83e6-5f17a39d4fde",
        "resourceId('Microsoft.EventHub/namespaces/eventhubs', parameters('namespace'), parameters('hub'))",
    ),
    (
        "Storage Blob Data Reader",
        "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
        f"resourceId('{CONTAINER}', parameters('account'), 'default', parameters('container'))",
    ),
    (
        "Log Analytics Data Reader",
        "3b03c2da-16b3-4a49-8834-0f8130efdd3b",
        "resourceId('Microsoft.OperationalInsights/workspaces', parameters('workspace'))",
    ),
}


@pytest.fixture(scope="module", params=PLANS)
def template(request):
    return json.loads((FOLDER / f"azuredeploy.{request.param}.json").read_text())


class LooseError(Exception):
    """An assignment that can be anything."""


def resources(template):
    """All resources, those of nested deployments, too, each with the template that it is in."""
    for one in template["resources"]:
        yield one, template
        nested = one.get("properties", {}).get("template") if "deployments" in one["type"] else None
        if nested:
            yield from resources(nested)


def of_type(template, kind):
    return [one for one, _ in resources(template) if one["type"] == kind]


def grants(template):
    """Role, its id and the scope of each assignment."""
    found = set()
    for one in of_type(template, GRANT):
        properties = one["properties"]
        role = re.fullmatch(
            r"\[subscriptionResourceId\('Microsoft.Authorization/roleDefinitions', '([0-9a-f-]{36})'\)\]",
            properties["roleDefinitionId"],
        )
        if not role or not one.get("scope"):
            raise LooseError("a role by anything but its id, or without a scope: on the whole resource group")
        found.add((properties["description"].removeprefix("aitrail: "), role[1], one["scope"].strip("[]")))
    return found


def test_templates_are_those_that_the_parts_make():
    done = subprocess.run([sys.executable, str(FOLDER / "build.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_right_is_in_the_table(template):
    assert grants(template) == GRANTS


@pytest.mark.parametrize(
    "widen",
    [
        lambda grant: grant.pop("scope"),
        lambda grant: grant.update(scope="[resourceGroup().id]"),
        lambda grant: grant.update(scope=grant["scope"].replace("ruleId", "insightsId")),
        lambda grant: grant["properties"].update(
            roleDefinitionId=grant["properties"]["roleDefinitionId"].replace("3913510d", "b24988ac")
        ),
        lambda grant: grant["properties"].update(roleDefinitionId="[parameters('role')]"),
    ],
    ids=["no scope", "resource group", "another resource", "another role", "a role of choice"],
)
def test_a_right_that_is_widened_is_noticed(template, widen):
    wider = copy.deepcopy(template)
    publisher = next(one for one in of_type(wider, GRANT) if "Publisher" in one["properties"]["description"])
    widen(publisher)
    with contextlib.suppress(LooseError):
        assert grants(wider) != GRANTS


def test_rights_are_given_to_the_app_alone(template):
    for one in of_type(template, GRANT):
        assert one["properties"]["principalType"] == "ServicePrincipal"
        assert one["properties"]["principalId"] in (
            "[reference(variables('identityId'), '2023-01-31').principalId]",
            "[parameters('principal')]",
        )
    for one, _ in resources(template):
        given = one.get("properties", {}).get("parameters", {}).get("principal")
        if given:
            assert given["value"] == "[reference(variables('identityId'), '2023-01-31').principalId]"


def test_no_key_password_or_connection_string_is_anywhere(template):
    text = json.dumps(template)
    for forbidden in ("listKeys", "listKeyValue", "AccountKey", "SharedAccessKey", "connectionString'", "sharedKey"):
        assert forbidden not in text
    for one in of_type(template, "Microsoft.Storage/storageAccounts"):
        assert one["properties"]["allowSharedKeyAccess"] is False
        assert one["properties"]["allowBlobPublicAccess"] is False
    secure = [name for name, one in template["parameters"].items() if one["type"] == "secureString"]
    assert secure == ["hashKey"]
    (secret,) = of_type(template, "Microsoft.KeyVault/vaults/secrets")
    assert secret["properties"]["value"] == "[parameters('hashKey')]"
    assert text.count("parameters('hashKey')") == 2, "the value and the condition, and nowhere else"


def test_settings_of_the_app_are_those_that_the_code_reads(template):
    (site,) = of_type(template, "Microsoft.Web/sites")
    settings = {one["name"]: one["value"] for one in site["properties"]["siteConfig"]["appSettings"]}
    own = {name for name in settings if name.startswith("AITRAIL_")}
    code = "".join(
        (ROOT / "connectors/aitrail/runtime" / name).read_text()
        for name in ("azure_function.py", "scheduled/azure_runs.py", "scheduled/azure_host.py")
    )
    for name in own - {"AITRAIL_HASH_KEY"}:
        assert name.partition("__")[0] in code, f"{name} is read by nobody"
    assert settings["AITRAIL_HASH_KEY"].startswith("[concat('@Microsoft.KeyVault(SecretUri=")
    assert 'key = "env:AITRAIL_HASH_KEY"' in settings["AITRAIL_CONFIG"]
    assert {value for name, value in settings.items() if name.endswith("__credential")} == {"managedidentity"}
    assert site["identity"]["type"] == "UserAssigned"
    assert site["properties"]["keyVaultReferenceIdentity"] == "[variables('identityId')]"


def evaluated(expression, values):
    """What the configuration's expression gives: concat, format, if and quoted text, as ARM evaluates them."""
    text = expression.strip()[1:-1]
    place = 0

    def skip():
        nonlocal place
        while place < len(text) and text[place] in " ,":
            place += 1

    def value():
        nonlocal place
        skip()
        if text[place] == "'":
            place += 1
            parts = []
            while True:
                end = text.index("'", place)
                parts.append(text[place:end])
                place = end + 1
                if text[place : place + 1] != "'":
                    return "'".join(parts)
                place += 1
        for known, what in values.items():
            if text.startswith(known, place):
                place += len(known)
                return what
        name = re.match(r"\w+", text[place:])[0]
        place += len(name) + 1
        arguments = []
        while True:
            skip()
            if text[place] == ")":
                place += 1
                break
            arguments.append(value())
        if name == "concat":
            return "".join(arguments)
        if name == "if":
            return arguments[1] if arguments[0] else arguments[2]
        assert name == "format"
        return re.sub(r"\{(\d)\}", lambda found: arguments[1 + int(found[1])], arguments[0])

    return value()


@pytest.mark.parametrize(("hub", "blobs", "tables"), [(True, True, True), (True, False, False), (False, False, True)])
def test_the_configuration_that_the_template_writes_is_one(template, hub, blobs, tables):
    from aitrail.config import parse
    from aitrail.registry import configured, source_settings

    (site,) = of_type(template, "Microsoft.Web/sites")
    settings = {one["name"]: one["value"] for one in site["properties"]["siteConfig"]["appSettings"]}
    rule = "reference(variables('ruleId'), '2023-03-11')"
    text = evaluated(
        settings["AITRAIL_CONFIG"],
        {
            "parameters('contentMode')": "redacted",
            f"{rule}.endpoints.logsIngestion": "https://aitrail-rule-x1y2.westeurope-1.ingest.monitor.azure.com",
            f"{rule}.immutableId": "dcr-00112233445566778899aabbccddeeff",
            "variables('readsHub')": hub,
            "variables('readsBlobs')": blobs,
            "parameters('readWorkspace')": tables,
            "parameters('eventHubNamespace')": "acme-logs",
            "parameters('eventHubName')": "ai-logs",
            "parameters('consumerGroup')": "aitrail",
            "parameters('logStorageAccount')": "acmelogs",
            "parameters('logContainer')": "insights-logs-requestresponse",
            "environment().suffixes.storage": "core.windows.net",
            "reference(variables('workspaceId'), '2023-09-01').customerId": "00000000-0000-4000-8000-0000000000aa",
            "parameters('moreConfiguration')": '\n[mapping]\nuser = ["user_id"]\n',
        },
    )
    config = parse(text, Path("AITRAIL_CONFIG"))
    assert [one.type for one in config.sources.values()] == (
        ["event_hubs"] * hub + ["azure_blobs"] * blobs + ["log_analytics"] * tables
    )
    for name, source in config.sources.items():
        source_settings(name, source, config)
    kind, sentinel = configured("sentinel", config)
    assert kind == "sentinel"
    assert sentinel.path("destinations.sentinel", "Custom-AIAudit_CL")
    assert config.mapping.user == ("user_id",)


def test_tables_and_streams_are_the_catalogs(template):
    wanted = {"AIAudit_CL": [(column, kind) for _, column, kind in columns()]}
    for stream, kind in STREAMS.items():
        if stream not in ("access", "agent_event"):
            wanted[kind.table] = [(column, type_) for _, column, type_ in record_table(stream)]
    tables = {}
    for one in of_type(template, "Microsoft.OperationalInsights/workspaces/tables"):
        schema = one["properties"]["schema"]
        assert one["name"] == f"[concat(parameters('workspaceName'), '/{schema['name']}')]"
        tables[schema["name"]] = [(column["name"], column["type"]) for column in schema["columns"]]
    assert {name: [column for column, _ in listed] for name, listed in tables.items()} == {
        name: [column for column, _ in listed] for name, listed in wanted.items()
    }
    (rule,) = of_type(template, "Microsoft.Insights/dataCollectionRules")
    assert rule["kind"] == "Direct", "with an ingestion endpoint of its own: no data collection endpoint is needed"
    assert "dataCollectionEndpointId" not in rule["properties"]
    declared = rule["properties"]["streamDeclarations"]
    for name, listed in wanted.items():
        own = [(column["name"], column["type"]) for column in declared[f"Custom-{name}"]["columns"]]
        assert own == [(column, "boolean" if kind == "bool" else kind) for column, kind in listed]
        assert own == tables[name], "what a stream takes in is what its table holds"
    assert set(declared) == {f"Custom-{name}" for name in wanted}
    for flow in rule["properties"]["dataFlows"]:
        assert flow["transformKql"] == "source"
        assert flow["streams"] == [flow["outputStream"]]
    for listed in tables.values():
        assert len(listed) <= 500
        assert all(len(column) <= 45 and re.fullmatch(r"[A-Za-z_]\w*", column) for column, _ in listed)
        assert not {column for column, _ in listed} & (RESERVED - {"TimeGenerated"})


def test_everything_that_is_declared_is_used_and_everything_that_is_used_is_declared(template):
    for one in [template, *(nested for _, nested in resources(template) if nested is not template)]:
        own = json.dumps({key: value for key, value in one.items() if key != "parameters"})
        inner = [
            json.dumps(each["properties"]["template"]) for each in one["resources"] if "deployments" in each["type"]
        ]
        for text in inner:
            own = own.replace(text, "")
        for kind, word in (("parameters", "parameters"), ("variables", "variables")):
            said = set(one.get(kind, {}))
            read = set(re.findall(rf"{word}\('(\w+)'\)", own))
            assert said == read, f"{kind}: unused {said - read}, undeclared {read - said}"
    for name, one in template["parameters"].items():
        assert one["metadata"]["description"], name


def test_api_versions_are_pinned_and_one_for_each_type(template):
    versions = {}
    for one, _ in resources(template):
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", one["apiVersion"]), f"{one['type']}: a preview, or none"
        versions.setdefault(one["type"], set()).add(one["apiVersion"])
    assert all(len(some) == 1 for some in versions.values()), versions
    for version in set(re.findall(r"reference\([^()]+(?:\([^()]*\))?, '([^']+)'\)", json.dumps(template))):
        assert version in {one for some in versions.values() for one in some}


def test_references_name_resources_that_are_made_here(template):
    """``dependsOn`` of the top level: each resource that is named by type is one of this template."""
    made = {one["type"] for one in template["resources"]}
    for one in template["resources"]:
        for need in one.get("dependsOn", []):
            name = re.fullmatch(r"\[variables\('(\w+)'\)\]", need)
            text = template["variables"][name[1]] if name else need
            kinds = re.findall(r"esourceId\((?:parameters\('\w+'\), |variables\('\w+'\), )?'([^']+)'", text)
            assert kinds, need
            assert set(kinds) <= made, f"{one['type']} waits for {kinds}, which is not made here"


def test_expressions_have_their_brackets(template):
    def walk(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(key)
                yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)
        elif isinstance(value, str):
            yield value

    for text in walk(template):
        if text.startswith("[") and not text.startswith("[["):
            bare = re.sub(r"'(?:[^']|'')*'", "''", text)
            assert bare.endswith("]"), text
            assert bare.count("(") == bare.count(")"), text
            assert bare.count("'") % 2 == 0, text


def test_alerts_ask_for_what_runs_write(template):
    alerts = of_type(template, "Microsoft.Insights/scheduledQueryRules")
    names = {one["name"].rpartition("'-")[2].rstrip("')]") for one in alerts}
    assert names == {"silent", "no-records", "lag", "failed", "crashed", "dead-letters", "waiting"}
    fields = set(Line.__struct_fields__)
    outcomes = {"ok", "partial", "held", "failed"}
    for one in alerts:
        (criterion,) = one["properties"]["criteria"]["allOf"]
        query = criterion["query"]
        assert set(re.findall(r"run\.(\w+)", query)) <= fields
        assert set(re.findall(r'outcome == "(\w+)"', query)) <= outcomes
        for dimension in criterion.get("dimensions", []):
            assert f"{dimension['name']} = " in query
        if "message startswith" in query:
            start = re.search(r"startswith '([^']+)'", query)[1]
            import msgspec

            assert msgspec.json.encode(Line(function="f")).decode().startswith(start)
        assert one["properties"]["actions"]["actionGroups"].startswith("[if(empty(parameters('actionGroupId'))")


def test_plans_differ_in_what_their_plan_is_about():
    flex, premium = (json.loads((FOLDER / f"azuredeploy.{plan}.json").read_text()) for plan in PLANS)
    (site,) = of_type(flex, "Microsoft.Web/sites")
    settings = {one["name"] for one in site["properties"]["siteConfig"]["appSettings"]}
    # Flex refuses these settings; its package lies in the container of the deployment.
    assert not settings & {"WEBSITE_RUN_FROM_PACKAGE", "FUNCTIONS_WORKER_RUNTIME", "FUNCTIONS_EXTENSION_VERSION"}
    config = site["properties"]["functionAppConfig"]
    assert config["deployment"]["storage"]["authentication"]["type"] == "UserAssignedIdentity"
    assert config["runtime"] == {"name": "python", "version": "3.13"}
    (plan,) = of_type(flex, "Microsoft.Web/serverfarms")
    assert plan["sku"] == {"name": "FC1", "tier": "FlexConsumption"}
    (site,) = of_type(premium, "Microsoft.Web/sites")
    settings = {one["name"]: one["value"] for one in site["properties"]["siteConfig"]["appSettings"]}
    assert settings["WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID"] == "[variables('identityId')]"
    assert not any("CONTENTAZUREFILE" in name for name in settings), "a share would need the account's key"
    (plan,) = of_type(premium, "Microsoft.Web/serverfarms")
    assert plan["sku"]["tier"] == "ElasticPremium"
    assert len(flex["resources"]) == len(premium["resources"])


def test_every_check_that_is_left_out_says_why():
    lines = (FOLDER / "checkov.yaml").read_text().splitlines()
    skipped = [line for line in lines if "CKV_" in line]
    assert skipped
    for line in skipped:
        assert re.fullmatch(r"  - CKV2?_AZURE_\d+ +# .{20,}", line), line
