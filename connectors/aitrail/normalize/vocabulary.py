"""One spelling for providers and models, so that the same model has the same name in every log.

``model_provider`` is who made the model where the name says so (Bedrock ids begin with the vendor), else who serves it,
in the spelling of the OpenTelemetry GenAI conventions (``gen_ai.provider.name``).
"""

from functools import lru_cache

from aitrail.normalize.aws_common import model_of

# Names that gateways and instrumentations use -> the conventions' well-known value. Older conventions wrote
# ``az.ai.openai`` and ``az.ai.inference``; LiteLLM writes its own provider keys.
PROVIDERS: dict[str, str] = {
    "az.ai.openai": "azure.ai.openai",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "azure_text": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "aws": "aws.bedrock",
    "aws_bedrock": "aws.bedrock",
    "sagemaker": "aws.sagemaker",
    "sagemaker_chat": "aws.sagemaker",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "text-completion-openai": "openai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}


@lru_cache(maxsize=4096)
def name_model(provider: str, model: str, version: str) -> tuple[str, str, str]:
    """Give ``(provider, model, version)``, all lower-case, in the one spelling; what is not known stays as it is."""
    provider = PROVIDERS.get(provider, provider)
    if provider == "aws.bedrock" and model:
        known = model_of(model)
        exact = model_of(version) if version else known
        if known.provider:
            return known.provider, known.model, known.version or exact.version
        return provider, known.model, known.version or version
    return provider, model, version


def filter_name(provider: str) -> str:
    """What the content filter of ``provider`` is called in ``guardrail_name``: ``azure-content-filter``."""
    vendor = provider.partition(".")[0]
    return f"{vendor}-content-filter" if vendor else "content-filter"
