"""Every call to AWS goes through ``Aws.call``: identity, pace, patience and errors are decided in this one place.

Identity: the process's own (as AWS tools find it) or an assumed role, whose credentials botocore renews before they
end. When AWS says that credentials are expired or refused, the session is made anew once, so that rotated keys are
picked up; the second refusal is an ``AuthError``. Throttling, 5xx and broken connections are retried here, with
exponential back-off and jitter on the injected clock; botocore's own retries are off.

Sources of the codes: "Common errors" of the API references of S3, SQS, STS, CloudTrail and CloudWatch Logs.
"""

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import botocore.config
import botocore.credentials
import botocore.exceptions
import botocore.loaders
import botocore.session
from msgspec import Struct

from aitrail.clock import Clock, iso_ms
from aitrail.errors import AitrailError, AuthError, ConfigError, TransientError
from aitrail.sources._aws_settings import AwsSettings

_ATTEMPTS = 5
_LONGEST_PAUSE = 20.0
_THIS_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})

_EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidToken",
     "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch",
     "AuthFailure", "InvalidSignatureException", "IncompleteSignature", "MissingAuthenticationToken"}
)  # fmt: skip
_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "403", "AllAccessDisabled",
     "AccountProblem", "KMS.AccessDeniedException", "KmsAccessDenied", "OptInRequired", "NotAuthorized"}
)  # fmt: skip
_THROTTLED = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
     "TooManyRequestsException", "ProvisionedThroughputExceededException", "RequestLimitExceeded", "SlowDown",
     "BandwidthLimitExceeded", "LimitExceededException", "PriorRequestNotComplete", "EC2ThrottledException",
     "KMS.ThrottlingException", "KmsThrottled", "429"}
)  # fmt: skip
_PLACES: Mapping[str, str] = {
    "NoSuchBucket": "create the bucket, or correct its name in the settings",
    "PermanentRedirect": "set region to the bucket's region",
    "AuthorizationHeaderMalformed": "set region to the bucket's region",
    "IllegalLocationConstraintException": "set region to the bucket's region",
    "KMS.DisabledException": "enable the KMS key of the object",
    "KMS.NotFoundException": "restore the KMS key of the object",
    "InvalidObjectState": "restore the object from its archive tier",
    "RequestTimeTooSkewed": "set this machine's clock",
    "QueueDoesNotExist": "create the queue, or correct queue_urls",
    "AWS.SimpleQueueService.NonExistentQueue": "create the queue, or correct queue_urls",
    "ResourceNotFoundException": "create it, or correct its name in the settings",
}
# (operation as botocore spells it) -> IAM actions; others are named as the service and the operation are.
_ACTIONS: Mapping[str, str] = {
    "HeadObject": "s3:GetObject and s3:ListBucket",
    "GetObject": "s3:GetObject (and kms:Decrypt on the object's key, when it is encrypted with one)",
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "DeleteMessageBatch": "sqs:DeleteMessage",
    "ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
}


class Refused(Exception):  # noqa: N818 - an answer that the caller expects, not a failure
    """AWS answered with a code that the caller asked to see."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Access(Struct, frozen=True):
    """One identity and where it calls."""

    profile: str = ""
    role_arn: str = ""
    external_id: str = ""
    session_name: str = "aitrail"
    session_seconds: int = 3_600
    endpoint_url: str = ""
    endpoint_urls: Mapping[str, str] = {}
    request_seconds: float = 30.0

    @classmethod
    def of(cls, settings: AwsSettings, role_arn: str = "") -> "Access":
        """The identity that ``settings`` describe; raises ``ConfigError`` for an endpoint without TLS."""
        for url in (settings.endpoint_url, *settings.endpoint_urls.values()):
            _check_url(url)
        return cls(
            settings.profile,
            role_arn,
            settings.external_id,
            settings.session_name,
            settings.session_seconds,
            settings.endpoint_url,
            settings.endpoint_urls,
            settings.request_seconds,
        )

    @property
    def account(self) -> str:
        """The account as far as the settings name it: of the role, else the profile, else ``self``."""
        parts = self.role_arn.split(":")
        return parts[4] if len(parts) > 5 else (self.profile or "self")


def _check_url(url: str) -> None:
    """Content and session tokens travel there: TLS, except to this machine itself."""
    parts = urlsplit(url)
    if url and parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _THIS_MACHINE):
        raise ConfigError(f"{url!r} is no https URL", where="endpoint_url", hint="write https://HOST")


class Pace:
    """At most ``rate`` calls per second; shared by all sources of the process that name the same thing."""

    def __init__(self, rate: float) -> None:
        self.gap = 1.0 / rate
        self._next = float("-inf")
        self._lock = threading.Lock()

    def wait(self, clock: Clock) -> None:
        """Wait for this caller's turn."""
        with self._lock:
            now = clock.monotonic()
            turn = max(now, self._next)
            self._next = turn + self.gap
        if turn > now:
            clock.sleep(turn - now)


_paces: "WeakKeyDictionary[Clock, dict[tuple[str, ...], Pace]]" = WeakKeyDictionary()
_paces_lock = threading.Lock()


def shared_pace(clock: Clock, rate: float, *name: str) -> Pace:
    """Return the pace of that name; the slowest rate that anybody asked for holds."""
    with _paces_lock:
        pace = _paces.setdefault(clock, {}).setdefault(name, Pace(rate))
        pace.gap = max(pace.gap, 1.0 / rate)
        return pace


class Aws:
    """Clients of one identity. Thread-safe; a client is made when it is first used."""

    def __init__(self, access: Access, clock: Clock) -> None:
        self._access = access
        self._clock = clock
        self._lock = threading.RLock()
        self._session: Any = None
        self._generation = 0
        self._clients: dict[tuple[str, str], Any] = {}

    @property
    def account(self) -> str:
        """See ``Access.account``."""
        return self._access.account

    def call(
        self,
        service: str,
        region: str,
        operation: str,
        resource: str,
        *,
        expect: frozenset[str] = frozenset(),
        pace: Pace | None = None,
        **parameters: Any,
    ) -> Any:
        """Call ``operation`` (as boto3 spells it, ``receive_message``) and return the answer.

        Args:
            service: which client,
            region: and where.
            operation: the method's name.
            resource: ARN or URL, for errors.
            expect: codes that raise ``Refused`` instead.
            pace: waited for before every attempt.
            **parameters: of the operation.

        Raises:
            AuthError: no or refused credentials, or a missing permission, which is named.
            TransientError: everything else that AWS or the way to it had to say.
            Refused: a code of ``expect``.
        """
        renewed, attempt = False, 0
        while True:
            if pace is not None:
                pace.wait(self._clock)
            generation = self._generation
            try:
                return getattr(self.client(service, region), operation)(**parameters)
            except botocore.exceptions.ClientError as error:
                code = code_of(error)
                if code in expect:
                    raise Refused(code) from None
                if code in _EXPIRED and not renewed:
                    renewed = True
                    self._renew(generation)
                    continue
                failure = judge(error, service, resource, self._access.role_arn)
                patient = code in _THROTTLED or _status(error) >= 500
            except _NO_CREDENTIALS as error:
                raise no_credentials(error) from None
            except (botocore.exceptions.BotoCoreError, OSError) as error:
                said, hint = f"{resource}: {operation} failed ({type(error).__name__})", way_of(error)
                failure = TransientError(said, hint=hint)
                patient = isinstance(error, (botocore.exceptions.HTTPClientError, OSError))
            attempt += 1
            if not patient or attempt >= _ATTEMPTS:
                raise failure
            try:
                self._clock.sleep(min(_LONGEST_PAUSE, 0.5 * 2**attempt) * random.uniform(0.5, 1.0))  # noqa: S311
            except TransientError:  # a clock that ends with its run: what is in the way is what AWS said
                raise failure from None

    def client(self, service: str, region: str) -> Any:
        """A botocore client; raises what botocore raises."""
        with self._lock:
            client = self._clients.get((service, region))
            if client is None:
                if self._session is None:
                    self._session = self._make_session()
                client = self._clients[service, region] = self._create(self._session, service, region)
            return client

    def region(self, configured: str) -> str:
        """The region to use: the configured one, else the environment's, else us-east-1; raises ``AuthError``."""
        if configured:
            return configured
        with self._lock:
            try:
                if self._session is None:
                    self._session = self._make_session()
                return str(self._session.get_config_variable("region") or "us-east-1")
            except _NO_CREDENTIALS as error:
                raise no_credentials(error) from None

    def close(self) -> None:
        """Give back connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()
            self._session = None

    def _renew(self, generation: int) -> None:
        """Forget session and clients, unless another thread has done so since ``generation``."""
        with self._lock:
            if generation == self._generation:
                self._generation += 1
                self._clients.clear()
                self._session = None

    def _make_session(self) -> Any:
        session = new_session(self._access.profile)
        if not self._access.role_arn:
            return session
        assumed = new_session(self._access.profile)
        provider = _AssumedRole(lambda: self._assume(session))
        assumed.register_component("credential_provider", botocore.credentials.CredentialResolver([provider]))
        return assumed

    def _assume(self, session: Any) -> dict[str, str]:
        """Assume the role; called by botocore whenever credentials are about to end."""
        access = self._access
        parameters = {
            "RoleArn": access.role_arn,
            "RoleSessionName": access.session_name,
            "DurationSeconds": access.session_seconds,
        }
        if access.external_id:
            parameters["ExternalId"] = access.external_id
        region = str(session.get_config_variable("region") or "us-east-1")
        client = self._create(session, "sts", region)
        try:
            answer = client.assume_role(**parameters)["Credentials"]
        finally:
            client.close()
        return {
            "access_key": answer["AccessKeyId"],
            "secret_key": answer["SecretAccessKey"],
            "token": answer["SessionToken"],
            "expiry_time": iso_ms(answer["Expiration"].timestamp()),
        }

    def _create(self, session: Any, service: str, region: str) -> Any:
        endpoint = self._access.endpoint_urls.get(service, self._access.endpoint_url)
        seconds = self._access.request_seconds
        config = botocore.config.Config(
            connect_timeout=min(seconds, 10.0),
            read_timeout=seconds,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=32,
            user_agent_extra="aitrail",
            s3={"addressing_style": "path"} if endpoint else None,
        )
        return session.create_client(service, region_name=region or None, endpoint_url=endpoint or None, config=config)


def new_session(profile: str = "") -> Any:
    """A botocore session; all of the process share what they know of the services, which is megabytes of JSON."""
    session = botocore.session.Session(profile=profile or None)
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


@lru_cache(maxsize=4)
def _loader(path: str | None) -> Any:
    return botocore.loaders.create_loader(path)


class _AssumedRole:
    """A provider of botocore's that knows one role (duck-typed: ``METHOD``, ``CANONICAL_NAME``, ``load``)."""

    METHOD = "assume-role"
    CANONICAL_NAME = "aitrail-assume-role"

    def __init__(self, assume: Callable[[], dict[str, str]]) -> None:
        self._assume = assume

    def load(self) -> Any:
        """Credentials that are fetched when they are first needed and renewed before they end."""
        return botocore.credentials.DeferredRefreshableCredentials(refresh_using=self._assume, method=self.METHOD)


_NO_CREDENTIALS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.CredentialRetrievalError,
    botocore.exceptions.TokenRetrievalError,
    botocore.exceptions.ProfileNotFound,
)


def no_credentials(error: Exception) -> AuthError:
    """The error for a process without an identity."""
    return AuthError(
        f"no AWS credentials are found ({type(error).__name__})", hint="give the process a role or set `profile`"
    )


def code_of(error: Any) -> str:
    """The code of a ``ClientError``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)


def action_of(service: str, operation: str) -> str:
    """The IAM action that ``operation`` (as the API spells it) of ``service`` needs."""
    return _ACTIONS.get(operation) or f"{service}:{operation}"


def way_of(error: Exception) -> str:
    """What to look at when no answer came from AWS at all."""
    if isinstance(error, botocore.exceptions.SSLError):
        return "the certificate is not trusted: AWS_CA_BUNDLE names the authorities of a proxy or private endpoint"
    if isinstance(error, botocore.exceptions.HTTPClientError | botocore.exceptions.ConnectionError | OSError):
        return "check region and endpoint_url, the proxy (HTTPS_PROXY, NO_PROXY), and that this network reaches AWS"
    return ""


def judge(error: Any, service: str, resource: str, role_arn: str = "") -> AitrailError:
    """Turn a ``ClientError`` into ours. AWS's own texts are not repeated: they quote requests and identities."""
    code, operation = code_of(error), str(error.operation_name)
    if operation == "AssumeRole":
        hint = f"allow sts:AssumeRole on {role_arn} for this identity, and this identity (and the external id) in "
        return AuthError(f"{role_arn}: the role cannot be assumed ({code})", hint=hint + "the role's trust policy")
    if code in _DENIED:
        action = action_of(service, operation)
        return AuthError(f"{resource}: {operation} is not allowed ({code})", hint=f"grant {action} on {resource}")
    if code in _EXPIRED:
        return AuthError(f"{resource}: the credentials are refused ({code})", hint="renew them")
    if code in _PLACES:
        return TransientError(f"{resource}: {operation} failed ({code})", hint=_PLACES[code])
    wait = 5.0 if code in _THROTTLED else None
    return TransientError(f"{resource}: {operation} failed ({code or _status(error)})", retry_after=wait)


@contextmanager
def finding(problems: list[str]) -> Iterator[None]:
    """Turn an error of ``Aws.call`` into a sentence of ``check``."""
    try:
        yield
    except AitrailError as error:
        problems.append(f"{error}: {error.hint}" if error.hint else str(error))
