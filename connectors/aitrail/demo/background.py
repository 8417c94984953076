"""The quiet part of CloudTrail: control plane calls around the models, training data reads, and calls foreign to AI."""

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from aitrail.demo.call import Record
from aitrail.demo.org import ACCOUNT, BUCKET_MODELS, BUCKET_TRAINING, MODELS, REGION, SERVICES, STAFF, Actor
from aitrail.demo.rng import Rng
from aitrail.demo.wire_cloudtrail import Api, identity, record

Maker = Callable[[Rng], tuple[Any, Any, tuple[tuple[str, str], ...]]]
ENDPOINTS = ("fraud-v3", "credit-memo-llm")
_GROUPS = ("fraud", "credit-memo", "churn")
_NOTHING: dict[str, str] = {}
_FOUNDATION_MODELS = tuple(model.model_id for model in MODELS.values() if model.provider == "bedrock")


class Routine(Struct, frozen=True, gc=False):
    """One kind of call: what it is, who makes it (a service or an engineer), how often, and what it carries."""

    source: str
    name: str
    who: Literal["svc-ml-pipeline", "svc-config-audit", "engineer"]
    weight: float
    make: Maker
    read_only: bool = True
    data_event: bool = False
    foreign: str = ""


def _none(_: Rng) -> tuple[Any, Any, tuple[tuple[str, str], ...]]:
    return None, None, ()


def _endpoint(rng: Rng) -> tuple[Any, Any, tuple[tuple[str, str], ...]]:
    return {"endpointName": rng.pick(ENDPOINTS)}, None, ()


def _foundation_model(rng: Rng) -> tuple[Any, Any, tuple[tuple[str, str], ...]]:
    return {"modelIdentifier": rng.pick(_FOUNDATION_MODELS)}, None, ()


def _training_job(rng: Rng) -> tuple[Any, Any, tuple[tuple[str, str], ...]]:
    group = rng.pick(_GROUPS)
    name = f"{group}-{rng.hex(8)}"
    request = {
        "trainingJobName": name,
        "roleArn": f"arn:aws:iam::{ACCOUNT}:role/SageMakerTraining",
        "algorithmSpecification": {
            "trainingImage": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/train-{group}:4.2.0",
            "trainingInputMode": "File",
        },
        "inputDataConfig": [
            {"channelName": "train", "dataSource": {"s3DataSource": {
                "s3DataType": "S3Prefix", "s3Uri": f"s3://{BUCKET_TRAINING}/training/{group}/"}}}
        ],
        "outputDataConfig": {"s3OutputPath": f"s3://{BUCKET_MODELS}/{group}/"},
        "resourceConfig": {"instanceType": "ml.m6i.4xlarge", "instanceCount": 1, "volumeSizeInGB": 100},
        "stoppingCondition": {"maxRuntimeInSeconds": 14400},
    }  # fmt: skip
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/{name}"
    return request, {"trainingJobArn": arn}, ()


def _describe_job(rng: Rng) -> tuple[Any, Any, tuple[tuple[str, str], ...]]:
    return {"trainingJobName": f"{rng.pick(_GROUPS)}-{rng.hex(8)}"}, None, ()


def _training_object(rng: Rng) -> tuple[Any, Any, tuple[tuple[str, str], ...]]:
    key = f"training/{rng.pick(_GROUPS)}/part-{rng.below(64):05d}.parquet"
    return _object(BUCKET_TRAINING, key)


def _web_object(rng: Rng) -> tuple[Any, Any, tuple[tuple[str, str], ...]]:
    return _object("example-bank-website", f"assets/img/{rng.hex(6)}.png")


def _object(bucket: str, key: str) -> tuple[Any, Any, tuple[tuple[str, str], ...]]:
    request = {"bucketName": bucket, "Host": f"{bucket}.s3.{REGION}.amazonaws.com", "key": key}
    resources = ((f"arn:aws:s3:::{bucket}/{key}", "AWS::S3::Object"), (f"arn:aws:s3:::{bucket}", "AWS::S3::Bucket"))
    return request, None, resources


def _instances(_: Rng) -> tuple[Any, Any, tuple[tuple[str, str], ...]]:
    return {"instancesSet": _NOTHING, "filterSet": _NOTHING}, None, ()


def _assume_role(rng: Rng) -> tuple[Any, Any, tuple[tuple[str, str], ...]]:
    request = {
        "roleArn": f"arn:aws:iam::{ACCOUNT}:role/DeployWebsite",
        "roleSessionName": f"deploy-{rng.hex(6)}",
        "durationSeconds": 3600,
    }
    return request, None, ()


_SAGEMAKER, _BEDROCK = "sagemaker.amazonaws.com", "bedrock.amazonaws.com"
ROUTINES: tuple[Routine, ...] = (
    Routine(_SAGEMAKER, "DescribeEndpoint", "svc-config-audit", 8, _endpoint),
    Routine(_SAGEMAKER, "ListEndpoints", "engineer", 3, _none),
    Routine(_SAGEMAKER, "DescribeTrainingJob", "svc-ml-pipeline", 6, _describe_job),
    Routine(_SAGEMAKER, "CreateTrainingJob", "svc-ml-pipeline", 1, _training_job, read_only=False),
    Routine(_SAGEMAKER, "ListModelPackages", "engineer", 1, _none),
    Routine(_BEDROCK, "ListFoundationModels", "svc-config-audit", 2, _none),
    Routine(_BEDROCK, "GetFoundationModel", "engineer", 1, _foundation_model),
    Routine(_BEDROCK, "ListGuardrails", "svc-config-audit", 2, _none),
    Routine(_BEDROCK, "GetModelInvocationLoggingConfiguration", "svc-config-audit", 1, _none),
    Routine("s3.amazonaws.com", "GetObject", "svc-ml-pipeline", 8, _training_object, data_event=True),
    Routine("s3.amazonaws.com", "GetObject", "engineer", 4, _web_object, data_event=True, foreign="not_ai_related"),
    Routine("ec2.amazonaws.com", "DescribeInstances", "svc-config-audit", 5, _instances, foreign="not_ai_related"),
    Routine("sts.amazonaws.com", "AssumeRole", "engineer", 3, _assume_role, foreign="not_ai_related"),
)
_WEIGHTS = tuple(routine.weight for routine in ROUTINES)
EVENT_SHARE = sum(r.weight for r in ROUTINES if not r.foreign) / sum(_WEIGHTS)


def routine(rng: Rng, t: float) -> Record:
    """One routine call at ``t``."""
    kind = rng.weighted(ROUTINES, _WEIGHTS)
    actor: Actor = rng.pick(STAFF["engineering"]) if kind.who == "engineer" else SERVICES[kind.who]
    request, response, resources = kind.make(rng)
    return record(
        Api(
            time=t,
            source=kind.source,
            name=kind.name,
            identity=identity(actor, t),
            event_id=rng.uuid(),
            request_id=rng.uuid(),
            ip=actor.office_ip,
            agent=actor.agent,
            request=request,
            response=response,
            read_only=kind.read_only,
            data_event=kind.data_event,
            resources=resources,
            foreign=kind.foreign,
        )
    )
