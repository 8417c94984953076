"""The record types: name -> normalizer. A new one is one file, one fixture folder and one line here."""

from aitrail.normalize import (
    anthropic_compliance,
    apim,
    azure_openai,
    bedrock_invocation,
    cloudflare_ai,
    cloudtrail,
    databricks_ai,
    defender_alert,
    envoy_ai,
    generic_access,
    kong,
    litellm,
    litellm_spend,
    openai_audit,
    otel_genai,
    portkey,
    sagemaker_capture,
    vertex,
)
from aitrail.normalize.outcome import Normalizer

NORMALIZERS: dict[str, Normalizer] = {
    "cloudtrail": cloudtrail.normalize,
    "bedrock_invocation": bedrock_invocation.normalize,
    "sagemaker_capture": sagemaker_capture.normalize,
    "azure_openai": azure_openai.normalize,
    "apim": apim.normalize,
    "defender_alert": defender_alert.normalize,
    "litellm": litellm.normalize,
    "litellm_spend": litellm_spend.normalize,
    "otel_genai": otel_genai.normalize,
    "kong": kong.normalize,
    "envoy_ai": envoy_ai.normalize,
    "cloudflare_ai": cloudflare_ai.normalize,
    "databricks_ai": databricks_ai.normalize,
    "portkey": portkey.normalize,
    "openai_audit": openai_audit.normalize,
    "anthropic_compliance": anthropic_compliance.normalize,
    "vertex": vertex.normalize,
    "generic_access": generic_access.normalize,
}
