"""One way to call Azure: what is worth another try is tried again, everything else becomes the right error.

The SDK's own retries are off: they sleep where no budget and no stop reach them. Facts: Azure Storage "Common REST API
error codes", "Status and error codes"; ``Retry-After`` is in seconds.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from aitrail.clock import Clock
from aitrail.errors import AitrailError, AuthError, TransientError

T = TypeVar("T")

# The SDK logs exceptions as they come, and those may quote requests, tokens and connection strings. What matters of
# them is raised or noted by the sources, without that.
logging.getLogger("azure").addHandler(logging.NullHandler())
logging.getLogger("azure").propagate = False

TRIES = 3
LONGEST_WAIT = 20.0
"""Seconds to sleep between two tries; a service that asks for more is left alone until the next turn."""

_LATER = frozenset({408, 429, 500, 502, 503, 504})
# Credentials that are not good any more, said with 403 where a signature or a SAS has expired.
_EXPIRED = frozenset({"AuthenticationFailed", "ExpiredAuthenticationToken"})
# The caller decides what these mean: not there, was changed meanwhile, cannot be read now.
_PASSED_ON = frozenset({404, 409, 412, 416})


class Calls:
    """Calls one service.

    Args:
        clock: waits.
        who: the source, for messages.
        permission: what the identity needs and where it is granted, one sentence.
        renew: gives up the credentials in use, so that the next call takes new ones.
    """

    def __init__(self, clock: Clock, who: str, permission: str, renew: Callable[[], None]) -> None:
        self._clock = clock
        self._who = who
        self._permission = permission
        self._renew = renew

    def run(self, what: str, call: Callable[[], T]) -> T:
        """Return what ``call`` gives; ``what`` says what it does, for messages.

        Raises:
            AuthError: refused also with fresh credentials.
            TransientError: the service does not answer or asks to wait.
            HttpResponseError: 404, 409, 412 and 416.
        """
        renewed = False
        tries = 0
        while True:
            tries += 1
            try:
                return call()
            except (AzureError, TypeError, AttributeError) as raised_error:
                error = _meant(raised_error)
                status = _status(error)
                if status in _PASSED_ON:
                    raise error from None
                if not renewed and (status == 401 or code_of(error) in _EXPIRED):
                    renewed = True
                    tries -= 1
                    self._renew()
                    continue
                raised = self.explain(error, what)
                if not isinstance(raised, TransientError) or tries >= TRIES:
                    raise raised from None
                wait = raised.retry_after if raised.retry_after is not None else float(2 ** (tries - 1))
                if wait > LONGEST_WAIT:
                    raise raised from None
                self._clock.sleep(wait)

    def explain(self, error: AzureError, what: str) -> AitrailError:
        """Turn an SDK error into ours; its own text is left out, because it may quote the request."""
        status, code = _status(error), code_of(error)
        said = f"{self._who}: {what}: {code or type(error).__name__}{f' (HTTP {status})' if status else ''}"
        if status in (401, 403) or (isinstance(error, ClientAuthenticationError) and status not in _LATER):
            return AuthError(said, hint=self._permission)
        if status in _LATER or isinstance(error, (ServiceRequestError, ServiceResponseError)):
            hint = "the service asks to wait" if status in (429, 503) else "nothing is lost; it is tried again"
            if not status:
                hint = "check the service's name, the proxy (HTTPS_PROXY), and that this network reaches it; " + hint
            return TransientError(said, retry_after=_retry_after(error), hint=hint)
        return TransientError(said, hint="see the code in the service's documentation; nothing is lost")


def _meant(error: BaseException) -> AzureError:
    """The service's error; the SDK stumbles over answers without a code (a proxy's page) while it handles them."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, AzureError):
        seen = seen.__context__
    if seen is None:
        raise error
    return seen


def _status(error: AzureError) -> int:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else 0


def code_of(error: AzureError) -> str:
    """The service's own code of an error, as ``BlobArchived``; empty when it gave none."""
    code: Any = getattr(error, "error_code", "") or ""
    return str(getattr(code, "value", code))[:64]


def _retry_after(error: AzureError) -> float | None:
    response: Any = getattr(error, "response", None) if isinstance(error, HttpResponseError) else None
    text = str(response.headers.get("Retry-After", "")) if response is not None else ""
    return min(float(text), 3_600.0) if text.isascii() and text.isdigit() else None
