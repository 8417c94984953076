"""Amazon Bedrock Guardrails through ``ApplyGuardrail``: a guardrail of one's own judges the prompt.

``source = INPUT``; user text is marked ``guard_content``, as prompt attacks are only looked for in what is guarded
(Bedrock API reference, "ApplyGuardrail" and "GuardrailAssessment"). What matched is content and is never read.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import boto3
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError
from msgspec import Meta

from aitrail.classify.agreement import Opinion
from aitrail.classify.contract import Text
from aitrail.classify.scorer import Common, ScorerError
from aitrail.errors import ConfigError
from aitrail.ports import SecretResolver

# A text unit is 1,000 characters; a request may hold 25 by default (Bedrock quotas, "text units per second").
_MAX_CHARS: Final = 25_000
_FAILURES: Final[Mapping[str, str]] = {
    "AccessDeniedException": "refused",
    "UnrecognizedClientException": "refused",
    "ExpiredTokenException": "refused",
    "ResourceNotFoundException": "not_found",
    "ThrottlingException": "throttled",
    "ServiceQuotaExceededException": "throttled",
    "ValidationException": "bad_request",
    "InternalServerException": "server_error",
}


class BedrockGuardrailSettings(Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[classify.scorers.NAME]`` with ``type = "bedrock-guardrail"``: masked text goes to this guardrail."""

    guardrail: Annotated[str, Meta(description="Id or ARN of the guardrail.")]
    version: Annotated[str, Meta(description="Its version, or DRAFT.")] = "DRAFT"
    region: Annotated[str, Meta(description="AWS Region; empty: that of the environment.")] = ""
    endpoint: Annotated[str, Meta(description="URL of a VPC endpoint; empty: the public one.")] = ""


class BedrockGuardrail:
    """Asks one guardrail; credentials are those of the environment. Thread-safe."""

    def __init__(self, settings: BedrockGuardrailSettings, secrets: SecretResolver) -> None:
        del secrets
        self._settings = settings
        self.place = f"Bedrock guardrail {settings.guardrail}"
        seconds = settings.timeout_seconds
        limits = BotoConfig(connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1})
        try:
            self.client: Any = boto3.client(
                "bedrock-runtime",
                region_name=settings.region or None,
                endpoint_url=settings.endpoint or None,
                config=limits,
            )
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"no client for Bedrock ({error})", hint='set region = "eu-west-1"') from None

    def ask(self, texts: Sequence[Text]) -> Opinion:
        """One call for all texts."""
        content, room = [], _MAX_CHARS
        for text in texts:
            kept = text.text[:room].encode("utf-8", "replace").decode()
            if kept:
                content.append({"text": {"text": kept, "qualifiers": ["guard_content"]}})
                room -= len(kept)
        if not content:
            raise ScorerError("no_text")
        try:
            answer = self.client.apply_guardrail(
                guardrailIdentifier=self._settings.guardrail,
                guardrailVersion=self._settings.version,
                source="INPUT",
                content=content,
            )
        except (ConnectTimeoutError, ReadTimeoutError):
            raise ScorerError("timeout") from None
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            raise ScorerError(_FAILURES.get(code, "failed")) from None
        except BotoCoreError:
            raise ScorerError("unreachable") from None
        return _opinion(answer)

    def check(self) -> list[str]:
        """Ask about a harmless sentence of our own."""
        try:
            self.ask([Text("prompt", "user", "What are your opening hours?")])
        except ScorerError as error:
            return [f"the guardrail {self._settings.guardrail} does not answer: {error.code}"]
        return []

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def _opinion(answer: Any) -> Opinion:
    """Attack and leak, each only denied when the guardrail's assessment shows that it is set up to look for it."""
    assessments = answer.get("assessments") or []
    intervened = answer.get("action") == "GUARDRAIL_INTERVENED"
    attack: bool | None = None
    leak: bool | None = None
    for item in _items(assessments, "contentPolicy", ("filters",)):
        if item.get("type") == "PROMPT_ATTACK":
            attack = bool(attack) or _detected(item, intervened=intervened)
    for item in _items(assessments, "sensitiveInformationPolicy", ("piiEntities", "regexes")):
        leak = bool(leak) or _detected(item, intervened=intervened)
    if not intervened and attack is None:
        attack = False  # asked about exactly this, and it let the prompt pass
    return Opinion("", attack, leak)


def _detected(item: Mapping[str, Any], *, intervened: bool) -> bool:
    """``detected`` says it where it is there; else the action does (NONE: only looked at)."""
    detected = item.get("detected")
    return bool(detected) if detected is not None else intervened and item.get("action") != "NONE"


def _items(assessments: Sequence[Any], policy: str, lists: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for assessment in assessments:
        for name in lists:
            yield from (assessment.get(policy) or {}).get(name) or ()
