"""Incidents that show in CloudTrail: a stolen key, tampering with guardrail and logging, copied weights, siphoning."""

import msgspec

from aitrail.demo import wire_bedrock, wire_cloudtrail
from aitrail.demo.org import ACCOUNT, ACCOUNT_OUTSIDE, APPS, BUCKET_MODELS, BY_ID, MODELS, REGION, SERVICES, STOLEN_KEY
from aitrail.demo.scene import Scene, clock

LOGGING_OFF = clock("19:41:30")
_SAGEMAKER, _BEDROCK, _S3 = "sagemaker.amazonaws.com", "bedrock.amazonaws.com", "s3.amazonaws.com"
_THIEF_IP = "192.0.2.77"
_THIEF_AGENT = "Boto3/1.34.11 md/Botocore#1.34.11 ua/2.0 os/windows#10 lang/python#3.11.4 Botocore/1.34.11"
_THIEF_REGIONS = (
    "us-east-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-northeast-1", "ap-southeast-1", "ap-southeast-2",
    "ap-south-1", "ca-central-1", "sa-east-1", "eu-west-3", "us-east-2",
)  # fmt: skip
_WANTED = "anthropic.claude-3-5-sonnet-20241022-v2:0"
_OPEN_REGIONS = ("us-west-2", "us-east-1")
_ASKED = (
    "Continue the story. She closes the door of the cabin and waits for him to speak first.",
    "Stay in character as the captain and describe what happens when the storm reaches the harbour.",
    "Write the next chapter, at least 900 words, first person, do not summarise.",
    "Rewrite the last scene from his point of view and make the argument longer.",
)


def llmjacking(scene: Scene) -> None:
    """Reconnaissance over many regions, refusals, then many invocations of an expensive model."""
    thief = wire_cloudtrail.iam_user("ci-deploy", STOLEN_KEY)
    at = clock("02:13:04")
    denied = (
        "AccessDenied",
        f"User: arn:aws:iam::{ACCOUNT}:user/ci-deploy is not authorized to perform the requested operation",
    )
    for region in _THIEF_REGIONS:
        for name in ("ListFoundationModels", "GetFoundationModelAvailability", "ListInferenceProfiles"):
            refused = denied if region not in _OPEN_REGIONS else None
            request = {"modelId": _WANTED} if name.startswith("Get") else None
            scene.api(
                at, _BEDROCK, name, thief, ip=_THIEF_IP, agent=_THIEF_AGENT, region=region, request=request,
                error=refused, read_only=True,
            )  # fmt: skip
            at += 1 + scene.rng.below(4)
    scene.api(
        at + 20, _BEDROCK, "GetModelInvocationLoggingConfiguration", thief, ip=_THIEF_IP, agent=_THIEF_AGENT,
        region="us-west-2", read_only=True,
    )  # fmt: skip
    _invocations(scene, thief, at + 60)


def _invocations(scene: Scene, thief: msgspec.Raw, at: float) -> None:
    app, model = APPS["notebooks"], msgspec.structs.replace(MODELS["claude-haiku"], model_id=_WANTED)
    actor = SERVICES["svc-ml-pipeline"]  # only a stand-in: identity, key and address below are the thief's
    for number in range(32):
        prompt = scene.rng.pick(_ASKED)
        answer = "The lamp swung once more and went out. " * scene.rng.between(18, 40)
        call = scene.traffic.call(
            app, actor, model, scene.midnight + at, prompt, answer, session="",
            status="throttled" if number in (11, 12, 25) else "success",
        )  # fmt: skip
        call.ip, call.region, call.streamed = _THIEF_IP, "us-west-2", False
        call.prompt_tokens += scene.rng.between(2500, 7800)
        scene.records.append(wire_cloudtrail.bedrock(call, key=thief, agent=_THIEF_AGENT))
        arn = f"arn:aws:iam::{ACCOUNT}:user/ci-deploy"
        scene.records.append(wire_bedrock.invocation(call, arn=arn))
        at += 20 + scene.rng.below(70)


def guardrail_off(scene: Scene) -> None:
    """Look at the logging, delete the guardrail, delete the logging; from home, without a second factor."""
    who = BY_ID["felix.gruber"]
    ip, agent = who.home_ip, "aws-cli/2.31.4 md/awscrt#0.28.1 ua/2.1 os/linux#6.8.0 lang/python#3.13.7"
    start = clock("19:38:10")
    scene.api(start, _BEDROCK, "GetModelInvocationLoggingConfiguration", who, ip=ip, agent=agent, mfa=False,
              read_only=True)  # fmt: skip
    scene.api(start + 31, _BEDROCK, "ListGuardrails", who, ip=ip, agent=agent, mfa=False, read_only=True)
    scene.api(start + 74, _BEDROCK, "GetGuardrail", who, ip=ip, agent=agent, mfa=False, read_only=True,
              request={"guardrailIdentifier": "gr4p0ex1mple"})  # fmt: skip
    scene.api(start + 118, _BEDROCK, "DeleteGuardrail", who, ip=ip, agent=agent, mfa=False,
              request={"guardrailIdentifier": "gr4p0ex1mple"})  # fmt: skip
    scene.api(LOGGING_OFF, _BEDROCK, "DeleteModelInvocationLoggingConfiguration", who, ip=ip, agent=agent, mfa=False)


def weights_copied(scene: Scene) -> None:
    """A burst of reads of model archives, then the package group and the bucket opened to another account."""
    who = BY_ID["felix.gruber"]
    ip, agent = who.home_ip, "[aws-cli/2.31.4 md/awscrt#0.28.1 ua/2.1 os/linux#6.8.0 lang/python#3.13.7]"
    at = clock("20:11:02")
    keys = [f"credit-memo/2026-10-30/model-{n:05d}-of-00014.safetensors" for n in range(1, 15)]
    keys += ["credit-memo/2026-10-30/tokenizer.json", "credit-memo/2026-10-30/model.safetensors.index.json"]
    keys += [f"{group}/{date}/model.tar.gz" for group in ("fraud", "churn") for date in ("2026-08-14", "2026-10-02")]
    scene.api(at, _SAGEMAKER, "DescribeModel", who, ip=ip, agent=agent, mfa=False, read_only=True,
              request={"modelName": "credit-memo-llm"})  # fmt: skip
    for key in keys:
        at += 2 + scene.rng.below(9)
        arn = f"arn:aws:s3:::{BUCKET_MODELS}"
        scene.api(
            at, _S3, "GetObject", who, ip=ip, agent=agent, mfa=False, read_only=True, data_event=True,
            request={"bucketName": BUCKET_MODELS, "Host": f"{BUCKET_MODELS}.s3.{REGION}.amazonaws.com", "key": key},
            extra={"bytesTransferredOut": 4_900_000_000 + scene.rng.below(90_000_000), "SignatureVersion": "SigV4"},
            resources=((f"{arn}/{key}", "AWS::S3::Object"), (arn, "AWS::S3::Bucket")),
        )  # fmt: skip
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT_OUTSIDE}:root"},
             "Action": ["sagemaker:DescribeModelPackage", "sagemaker:CreateModel"], "Resource": "*"}
        ],
    }  # fmt: skip
    scene.api(at + 95, _SAGEMAKER, "PutModelPackageGroupPolicy", who, ip=ip, agent=agent, mfa=False,
              request={"modelPackageGroupName": "credit-memo", "resourcePolicy": msgspec.json.encode(policy).decode()},
              response={"modelPackageGroupArn":
                        f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package-group/credit-memo"})  # fmt: skip
    bucket_policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT_OUTSIDE}:root"},
             "Action": ["s3:GetObject", "s3:ListBucket"],
             "Resource": [f"arn:aws:s3:::{BUCKET_MODELS}", f"arn:aws:s3:::{BUCKET_MODELS}/*"]}
        ],
    }  # fmt: skip
    scene.api(at + 131, _S3, "PutBucketPolicy", who, ip=ip, agent=agent, mfa=False,
              request={"bucketName": BUCKET_MODELS, "policy": "", "bucketPolicy": bucket_policy},
              resources=((f"arn:aws:s3:::{BUCKET_MODELS}", "AWS::S3::Bucket"),))  # fmt: skip


def capture_redirect(scene: Scene) -> None:
    """A new endpoint configuration whose data capture goes to a bucket of another account."""
    who = BY_ID["stefan.ilic"]
    ip, agent = who.office_ip, who.agent
    at = clock("16:32:20")
    name = "credit-memo-llm-cfg-20261120"
    bucket = f"mlops-mirror-{ACCOUNT_OUTSIDE}"
    scene.api(at - 140, _SAGEMAKER, "DescribeEndpointConfig", who, ip=ip, agent=agent, read_only=True,
              request={"endpointConfigName": "credit-memo-llm-cfg"})  # fmt: skip
    scene.api(
        at, _SAGEMAKER, "CreateEndpointConfig", who, ip=ip, agent=agent,
        request={
            "endpointConfigName": name,
            "productionVariants": [
                {"variantName": "AllTraffic", "modelName": "credit-memo-llm", "initialInstanceCount": 1,
                 "instanceType": "ml.g6.12xlarge", "initialVariantWeight": 1}
            ],
            "dataCaptureConfig": {
                "enableCapture": True, "initialSamplingPercentage": 100, "destinationS3Uri": f"s3://{bucket}/capture",
                "captureOptions": [{"captureMode": "Input"}, {"captureMode": "Output"}],
            },
        },
        response={"endpointConfigArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint-config/{name}"},
    )  # fmt: skip
    scene.api(
        at + 48, _SAGEMAKER, "UpdateEndpoint", who, ip=ip, agent=agent,
        request={"endpointName": "credit-memo-llm", "endpointConfigName": name},
        response={"endpointArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/credit-memo-llm"},
    )  # fmt: skip
