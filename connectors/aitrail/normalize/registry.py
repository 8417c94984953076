"""The record types: name -> normalizer. A new one is one file, one fixture folder and one line here."""

from aitrail.normalize import (
    apim,
    azure_openai,
    bedrock_invocation,
    cloudtrail,
    litellm,
    litellm_spend,
    otel_genai,
    sagemaker_capture,
)
from aitrail.normalize.outcome import Normalizer

NORMALIZERS: dict[str, Normalizer] = {
    "cloudtrail": cloudtrail.normalize,
    "bedrock_invocation": bedrock_invocation.normalize,
    "sagemaker_capture": sagemaker_capture.normalize,
    "azure_openai": azure_openai.normalize,
    "apim": apim.normalize,
    "litellm": litellm.normalize,
    "litellm_spend": litellm_spend.normalize,
    "otel_genai": otel_genai.normalize,
}
