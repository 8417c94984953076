"""The CloudFormation template: what each role may do, that it fits the code, and that it is what its parts say."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from aitrail.config import parse
from aitrail.registry import SOURCES, configured, source_settings
from aitrail.runtime.scheduled import telling

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "aws"
GOLDEN = ROOT / "tests" / "data" / "aws_permissions.json"
# Actions that know no resources (service authorization reference), with the reason that is looked up there.
NO_RESOURCE = {"cloudtrail:LookupEvents": "CloudTrail defines no resource type for it"}
# Resources whose end is a `*`: what stands there is not known when the role is made.
ENDS_OPEN = {
    "${DeadLetterBucket.Arn}/dead/*": "keys of dead letters",
    "${DeadLetterBucket.Arn}/aws/lambda/*": "keys that Lambda itself gives to events that failed",
    "arn:${AWS::Partition}:s3:::${LogBucket}/${LogPrefix}*": "keys of log objects",
    "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${PolledLogGroup}:*": "streams of one group",
}


def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("aitrail_deploy_aws_build", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = build()
TEMPLATE = BUILD.load()
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: one["Properties"] for name, one in RESOURCES.items() if one["Type"] == kind}


def text(value: Any) -> str:
    """A value as the template writes it; ``GetAtt`` and ``Ref`` by what they name."""
    if isinstance(value, BUILD.Tagged):
        if value.tag == "GetAtt":
            return "${" + value.value + "}"
        if value.tag == "Ref":
            return "${" + value.value + "}"
        assert value.tag == "Sub", value.tag
        return str(value.value)
    return str(value)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(properties: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Statements of a role with the condition that they hang on."""
    found = []
    for policy in properties["Policies"]:
        for one in policy["PolicyDocument"]["Statement"]:
            if isinstance(one, BUILD.Tagged):
                assert one.tag == "If"
                condition, inner, none = one.value
                assert text(none) == "${AWS::NoValue}"
                found.append((condition, inner))
            else:
                found.append(("", one))
    return found


def permissions() -> dict[str, list[str]]:
    """Every role with every action on every resource that it may do."""
    found: dict[str, list[str]] = {}
    for name, properties in of_type("AWS::IAM::Role").items():
        assert set(properties) == {"AssumeRolePolicyDocument", "Policies"}, f"{name}: managed policies are not judged"
        rows = []
        for condition, one in statements(properties):
            assert one["Effect"] == "Allow"
            assert set(one) <= {"Sid", "Effect", "Action", "Resource"}
            for given in listed(one["Resource"]):
                chosen = isinstance(given, BUILD.Tagged) and given.tag == "If"
                on, resource = (given.value[0], given.value[1]) if chosen else (condition, given)
                rows += [f"{action} on {text(resource)}{f' if {on}' if on else ''}" for action in listed(one["Action"])]
        found[name] = sorted(rows)
    return found


def test_template_is_what_its_parts_say() -> None:
    assert (FOLDER / "template.yaml").read_text(encoding="utf-8") == BUILD.template()
    assert len(BUILD.template().encode()) < 51_200  # what CloudFormation takes without a bucket


def test_permissions_are_the_agreed_ones(request: pytest.FixtureRequest) -> None:
    """Whoever widens a role has to say so here: python -m pytest ... --update-golden."""
    found = json.dumps(permissions(), indent=2) + "\n"
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


def test_every_function_has_a_role_of_its_own() -> None:
    roles = [text(one["Role"]) for one in of_type("AWS::Lambda::Function").values()]
    assert sorted(roles) == sorted(f"${{{name}.Arn}}" for name in of_type("AWS::IAM::Role"))


def wildcards(rows: dict[str, list[str]]) -> list[str]:
    """What is wider than it has to be."""
    found = []
    for role, lines in rows.items():
        for line in lines:
            action, _, resource = line.partition(" if ")[0].partition(" on ")
            if "*" in action or "?" in action:
                found.append(f"{role}: {action}")
            if resource == "*" and action not in NO_RESOURCE:
                found.append(f"{role}: {action} on everything")
            elif resource != "*" and "*" in resource and resource not in ENDS_OPEN:
                found.append(f"{role}: {resource}")
    return found


def test_no_wildcards() -> None:
    assert wildcards(permissions()) == []


@pytest.mark.parametrize(
    "line",
    ["s3:* on ${DeadLetterBucket.Arn}", "s3:GetObject on *", "s3:Get* on x", "s3:GetObject on arn:aws:s3:::acme-*",
     "dynamodb:PutItem on ${StateTable.Arn}*"],
)  # fmt: skip
def test_wider_is_noticed(line: str) -> None:
    assert wildcards({"Role": [line]})


def test_the_log_groups_arn_ends_with_its_streams() -> None:
    """``Arn`` of a log group ends in ``:*`` (CloudFormation reference), so the roles name just the one group."""
    for name in ("Reader", "Poller", "Subscription", "Urgent"):
        rows = permissions()[f"{name}Role"]
        assert f"logs:PutLogEvents on ${{{name}Log.Arn}}" in rows
        group = RESOURCES[f"{name}Log"]["Properties"]["LogGroupName"].value
        assert group == "/aws/lambda/" + text(RESOURCES[name]["Properties"]["FunctionName"])


def test_resource_policies_name_who_may() -> None:
    """Queues and the key take nothing from another account."""
    for name, properties in of_type("AWS::SQS::QueuePolicy").items():
        for one in properties["PolicyDocument"]["Statement"]:
            assert one["Condition"]["StringEquals"]["aws:SourceAccount"].value == "AWS::AccountId", name
    for one in RESOURCES["Key"]["Properties"]["KeyPolicy"]["Statement"]:
        assert all("*" not in action for action in listed(one["Action"]))
        assert "Condition" in one or "root" in text(one["Principal"]["AWS"])


# --- functions


def config_of(function: str, conditions: dict[str, bool], kind: str = "splunk") -> str:
    """The TOML that a function gets, its parameters filled in."""
    values = {
        "HashKey": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:HashKey-a1b2c3",
        "DestinationSecret": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:DestinationSecret-a1b2c3",
        "DestinationUrl": "https://siem.example.com:8088", "DestinationIndex": "ai_audit", "ContentMode": "redacted",
        "AWS::StackName": "aitrail", "LogBucket": "acme-trail", "LogPrefix": "AWSLogs/",
        "ObjectQueue": "https://sqs.eu-west-1.amazonaws.com/111122223333/aitrail-ObjectQueue-1ABC",
        "PolledLogGroup": "/bedrock/calls",
    }  # fmt: skip
    holds = {"IsPackaged": kind == "packaged", "IsSplunk": kind == "splunk", **conditions}

    def resolved(value: Any) -> str:
        if isinstance(value, BUILD.Tagged) and value.tag == "If":
            condition, yes, no = value.value
            return resolved(yes if holds[condition] else no)
        if isinstance(value, BUILD.Tagged) and value.tag == "Sub":
            return re.sub(r"\$\{([^}]+)\}", lambda found: values[found[1]], value.value)
        assert isinstance(value, str), value
        return value

    variables = RESOURCES[function]["Properties"]["Environment"]["Variables"]
    return "\n".join(resolved(variables[name]) for name in sorted(variables) if name.startswith("AITRAIL_CONFIG"))


ALL = {"HasTrail": True, "HasPolledGroup": True, "HasGateway": False}


@pytest.mark.parametrize("kind", ["splunk", "elastic"])
@pytest.mark.parametrize("function", ["Reader", "Poller", "Subscription", "Urgent"])
def test_configuration_is_understood(function: str, kind: str) -> None:
    config = parse(config_of(function, ALL, kind), Path("aitrail.toml"))
    assert configured("siem", config)[0] == kind
    assert config.tenants["default"].key.startswith("aws-sm:arn:")
    for name, settings in config.sources.items():
        assert source_settings(name, settings, config) is not None
    expected = {"Reader": {"s3_sqs"}, "Poller": {"cloudtrail_lookup", "cloudwatch_logs"}}.get(function, set())
    assert {one.type for one in config.sources.values()} == expected <= set(SOURCES)


def test_configuration_without_sources_is_understood() -> None:
    none = dict.fromkeys(ALL, False)
    assert parse(config_of("Poller", none, "packaged"), Path("aitrail.toml")).sources == {}


def test_functions_are_what_the_package_is_made_for() -> None:
    from aitrail.runtime import aws_lambda

    functions = of_type("AWS::Lambda::Function")
    assert len(functions) == 4
    for properties in functions.values():
        assert properties["Runtime"] == "python3.13"
        module, _, name = properties["Handler"].rpartition(".")
        assert module == aws_lambda.__name__
        assert callable(getattr(aws_lambda, name))
        assert properties["Architectures"][0].value == "Architecture"
        assert properties["ReservedConcurrentExecutions"]
        assert properties["KmsKeyArn"].value == "Key.Arn"
    assert TEMPLATE["Parameters"]["Architecture"]["AllowedValues"] == ["arm64", "x86_64"]


def test_what_fails_is_kept() -> None:
    """Items of queues are asked about one by one; pushes that fail go to the bucket; polls have their cursors."""
    assert RESOURCES["ReaderMapping"]["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    queue = RESOURCES["ObjectQueue"]["Properties"]
    assert queue["VisibilityTimeout"] >= 6 * RESOURCES["Reader"]["Properties"]["Timeout"]
    attempts = queue["RedrivePolicy"]["maxReceiveCount"] * queue["VisibilityTimeout"]
    assert attempts < queue["MessageRetentionPeriod"], "a message would be gone before it is set aside"
    for name in ("SubscriptionRetries", "UrgentRetries"):
        one = RESOURCES[name]["Properties"]
        assert one["DestinationConfig"]["OnFailure"]["Destination"].value == "DeadLetterBucket.Arn"
    notified = RESOURCES["DeadLetterBucket"]["Properties"]["NotificationConfiguration"]["QueueConfigurations"]
    assert notified[0]["Queue"].value == "DeadLetterQueue.Arn"


def test_the_rule_sees_read_only_events() -> None:
    rule = RESOURCES["UrgentRule"]["Properties"]
    assert rule["State"] == "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
    assert "GetModelInvocationLoggingConfiguration" in rule["EventPattern"]["detail"]["eventName"]


def test_every_cause_has_an_alarm() -> None:
    """Alarms ask for metrics that runs really write, and each cause has one of its own."""
    own = [one for one in of_type("AWS::CloudWatch::Alarm").values() if one["Namespace"] == telling.NAMESPACE]
    asked = {one["MetricName"] for one in own}
    assert asked <= set(telling.UNITS)
    assert {f"Failures.{cause}" for cause in telling.CAUSES} <= asked
    assert {"Lag", "Records", "GivenBack"} <= asked
    assert all(one["Dimensions"][0]["Name"] == "Stack" for one in own)
    silence = next(one for one in own if one["MetricName"] == "Records")
    assert silence["TreatMissingData"] == "breaching"


def test_no_alias_is_left() -> None:
    """CloudFormation refuses YAML aliases."""
    events = yaml.parse((FOLDER / "template.yaml").read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    assert not any(isinstance(one, yaml.AliasEvent) for one in events)
