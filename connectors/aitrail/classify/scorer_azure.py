"""Azure AI Content Safety, Prompt Shields: ``POST /contentsafety/text:shieldPrompt?api-version=2024-09-01``.

One call judges one user prompt and up to five documents, together up to 10,000 characters each (Azure AI Content
Safety REST reference, "Text Operations - Detect Text Jailbreak"; limits of "Prompt Shields in Azure AI Content
Safety"). What users said goes as the prompt, what tools returned as documents; what is longer is cut.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import httpx
import msgspec
from msgspec import Meta

from aitrail.classify.agreement import Opinion
from aitrail.classify.contract import Text
from aitrail.classify.scorer import Common, ScorerError
from aitrail.errors import ConfigError
from aitrail.ports import SecretResolver

API_VERSION: Final = "2024-09-01"
_MAX_CHARS: Final = 10_000
_MAX_DOCUMENTS: Final = 5
# Status -> code of the failure; the body of an answer never is.
_FAILURES: Final = {401: "refused", 403: "refused", 404: "not_found", 408: "timeout", 429: "throttled"}


class PromptShieldsSettings(Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[classify.scorers.NAME]`` with ``type = "azure-prompt-shields"``: masked text goes to this endpoint."""

    endpoint: Annotated[str, Meta(description="https://NAME.cognitiveservices.azure.com")]
    key: Annotated[str, Meta(description="Reference to the resource's key, e.g. env:CONTENT_SAFETY_KEY.")]


class _Analysis(msgspec.Struct, frozen=True):
    attackDetected: bool  # noqa: N815 - the name on the wire


class _Answer(msgspec.Struct, frozen=True):
    userPromptAnalysis: _Analysis | None = None  # noqa: N815
    documentsAnalysis: list[_Analysis] | None = None  # noqa: N815


class PromptShields:
    """Asks Prompt Shields. Thread-safe."""

    def __init__(self, settings: PromptShieldsSettings, secrets: SecretResolver) -> None:
        self._settings = settings
        self.place = settings.endpoint
        url = httpx.URL(settings.endpoint)
        if url.scheme != "https" and url.host not in ("127.0.0.1", "localhost"):
            raise ConfigError("the endpoint must begin with https://", hint="text of prompts goes there")
        self._url = f"{settings.endpoint.rstrip('/')}/contentsafety/text:shieldPrompt?api-version={API_VERSION}"
        self._client = httpx.Client(
            timeout=settings.timeout_seconds,
            headers={"Ocp-Apim-Subscription-Key": secrets.resolve(settings.key)},
            follow_redirects=False,
        )

    def ask(self, texts: Sequence[Text]) -> Opinion:
        """One call for all texts; an attack in any of them is one."""
        prompt = "\n".join(text.text for text in texts if text.role == "user")[:_MAX_CHARS]
        documents: list[str] = []
        room = _MAX_CHARS
        for text in texts:
            if text.role == "tool" and room and len(documents) < _MAX_DOCUMENTS:
                documents.append(text.text[:room])
                room -= len(documents[-1])
        try:
            answer = self._client.post(self._url, content=_body(prompt, documents), headers=_JSON)
        except httpx.TimeoutException:
            raise ScorerError("timeout") from None
        except httpx.HTTPError:
            raise ScorerError("unreachable") from None
        if answer.status_code != httpx.codes.OK:
            code = "server_error" if answer.status_code >= 500 else "bad_request"
            raise ScorerError(_FAILURES.get(answer.status_code, code))
        try:
            found = msgspec.json.decode(answer.content, type=_Answer)
        except msgspec.MsgspecError:
            raise ScorerError("unreadable") from None
        if found.userPromptAnalysis is None and not found.documentsAnalysis:
            raise ScorerError("unreadable")
        verdicts = [found.userPromptAnalysis, *(found.documentsAnalysis or ())]
        return Opinion("", attack=any(one is not None and one.attackDetected for one in verdicts))

    def check(self) -> list[str]:
        """Ask about a harmless sentence of our own."""
        try:
            self.ask([Text("prompt", "user", "What are your opening hours?")])
        except ScorerError as error:
            return [f"Prompt Shields at {self._settings.endpoint} does not answer: {error.code}"]
        return []

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


_JSON: Final = {"Content-Type": "application/json"}


def _body(prompt: str, documents: list[str]) -> bytes:
    # Lone surrogates are no UTF-8: they are replaced, the verdict does not hang on them.
    clean = [text.encode("utf-8", "replace").decode() for text in (prompt, *documents)]
    return msgspec.json.encode({"userPrompt": clean[0], "documents": clean[1:]})
