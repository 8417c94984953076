"""CloudTrail's userIdentity as who fields: the person behind a role, the role, the kind of principal.

Rules (CloudTrail user guide, "userIdentity element", and what real records show):

* person: onBehalfOf.userId, sourceIdentity, role-session name, userName, arn; then principalId, invokedBy, account;
* role and session issuer: sessionIssuer.arn;
* an SSO permission-set role, a console credential or an Identity Center user is a human; AWSService, invokedBy, a
  session named after an instance, and inScopeOf are a service, or an agent when AgentCore issued the credentials.
"""

import re
from functools import lru_cache

import msgspec

from aitrail.event import PrincipalType
from aitrail.normalize.common import decode, has_duplicate_key
from aitrail.normalize.outcome import Rejected

_INSTANCE_SESSION = re.compile(r"i-[0-9a-f]+", re.ASCII)
_EMAIL = re.compile(r"[^@\s/:]{1,64}@[^@\s/:]{1,190}\.[^@\s/:.]{2,63}")
_SSO_ROLE = "AWSReservedSSO_"
_SESSIONS = frozenset({"AssumedRole", "FederatedUser"})
_ANONYMOUS = frozenset({"", "anonymous", "anonymous_principal"})
_PEOPLE = frozenset({"IdentityCenterUser", "SAMLUser", "Directory", "Root"})
CACHED_BYTES = 4096  # a longer userIdentity is not a real one and must not fill the cache
_QUOTE = (b'"',)


class _Issuer(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None
    arn: str | None = None
    principalId: str | None = None
    userName: str | None = None


class _Attributes(msgspec.Struct, frozen=True, gc=False):
    mfaAuthenticated: str | bool | None = None


class _Federation(msgspec.Struct, frozen=True, gc=False):
    federatedProvider: str | None = None


class _Session(msgspec.Struct, frozen=True, gc=False):
    sessionIssuer: _Issuer | None = None
    attributes: _Attributes | None = None
    sourceIdentity: str | None = None
    ec2RoleDelivery: str | float | None = None
    webIdFederationData: _Federation | None = None


class _Behalf(msgspec.Struct, frozen=True, gc=False):
    userId: str | None = None


class _Scope(msgspec.Struct, frozen=True, gc=False):
    issuerType: str | None = None
    credentialsIssuedTo: str | None = None
    sourceArn: str | None = None


class _UserIdentity(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None
    principalId: str | None = None
    arn: str | None = None
    accountId: str | None = None
    accessKeyId: str | None = None
    userName: str | None = None
    invokedBy: str | None = None
    sessionContext: _Session | None = None
    onBehalfOf: _Behalf | None = None
    inScopeOf: _Scope | None = None
    credentialId: str | None = None
    identityProvider: str | None = None
    sourceIdentity: str | None = None


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Who acted. Empty texts where the record does not say; ``known`` is False when it names nobody at all."""

    known: bool = False
    user_id: str = ""
    user_name: str = ""
    user_email: str = ""
    principal_type: PrincipalType = "unknown"
    role: str = ""
    session_issuer: str = ""
    credential_id: str = ""
    mfa: bool | None = None
    account: str = ""
    agent: str = ""
    invoked_by: str = ""
    arn: str = ""


NOBODY = Identity()
_decoder = msgspec.json.Decoder(_UserIdentity | None)


def identity_of(raw: bytes) -> Identity | Rejected:
    """Read the bytes of a userIdentity object; ``null`` gives nobody. Results of equal bytes are remembered."""
    if len(raw) <= CACHED_BYTES:
        return _cached_identity(raw)
    return _read_identity(raw)


def _read_identity(raw: bytes) -> Identity | Rejected:
    user = decode(_decoder, raw, "cloudtrail")
    if isinstance(user, Rejected):
        return Rejected(user.code, f"userIdentity.{user.field}".rstrip("."), "cloudtrail")
    if user is None:
        return NOBODY
    if has_duplicate_key(raw, _QUOTE):
        return Rejected("json_duplicate_key", "userIdentity", "cloudtrail")
    return _identity(user)


_cached_identity = lru_cache(maxsize=8192)(_read_identity)


def _identity(user: _UserIdentity) -> Identity:
    session = user.sessionContext or _Session()
    issuer = session.sessionIssuer or _Issuer()
    issuer_arn = issuer.arn or user.identityProvider or ""
    session_name = _session_name(user)
    person = (
        (user.onBehalfOf.userId if user.onBehalfOf else None)
        or session.sourceIdentity
        or user.sourceIdentity
        or session_name
        or user.userName
        or user.arn
        or _tail(user.principalId)
        or user.invokedBy
        or user.accountId
        or ""
    )
    email = next((text for text in (person, session_name, user.userName or "") if _EMAIL.fullmatch(text)), "")
    agent = _agent(user.inScopeOf)
    return Identity(
        known=person.lower() not in _ANONYMOUS,
        user_id=person.lower(),
        user_name="" if person.startswith("arn:") else person.lower(),
        user_email=email.lower(),
        principal_type=_principal_type(user, session, issuer_arn, agent, email),
        role=issuer_arn if ":role/" in issuer_arn else "",
        session_issuer=issuer_arn,
        credential_id=user.accessKeyId or user.credentialId or "",
        mfa=_mfa(session.attributes.mfaAuthenticated if session.attributes else None),
        account=user.accountId or "",
        agent=agent,
        invoked_by=user.invokedBy or "",
        arn=user.arn or "",
    )


def _principal_type(user: _UserIdentity, session: _Session, issuer_arn: str, agent: str, email: str) -> PrincipalType:
    if user.onBehalfOf is not None or user.type in _PEOPLE or f"/{_SSO_ROLE}" in issuer_arn:
        return "human"
    if agent:
        return "agent"
    if (
        user.type == "AWSService"
        or user.invokedBy
        or user.inScopeOf is not None
        or session.ec2RoleDelivery is not None
        or _INSTANCE_SESSION.fullmatch(_session_name(user))
    ):
        return "service"
    # A second factor or an e-mail address as session name is what people's sessions have.
    if email or _mfa(session.attributes.mfaAuthenticated if session.attributes else None):
        return "human"
    return "unknown"


def _session_name(user: _UserIdentity) -> str:
    """The session's name: tail of the sts ARN, or of principalId behind the colon when there is no ARN."""
    arn = user.arn or ""
    if user.type not in _SESSIONS and ":assumed-role/" not in arn:
        return ""
    if ":federated-user/" in arn or arn.count("/") >= 2:
        return arn.rpartition("/")[2]
    return user.principalId.partition(":")[2] if user.principalId else ""


def _tail(principal: str | None) -> str:
    return principal.rpartition(":")[2] or principal if principal else ""


def _mfa(value: str | bool | None) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value


def _agent(scope: _Scope | None) -> str:
    """The AgentCore resource that the credentials were issued for, lower-case name; empty for anything else."""
    if scope is None:
        return ""
    arn = scope.sourceArn or scope.credentialsIssuedTo or ""
    if ":bedrock-agentcore:" in arn or (scope.issuerType or "").startswith("AWS::BedrockAgentCore"):
        return arn.rpartition("/")[2].lower() or "agentcore"
    return ""


@lru_cache(maxsize=8192)
def identity_of_arn(arn: str) -> Identity:
    """Who an ARN names, by the same rules (Bedrock invocation log: ``identity.arn`` is all there is).

    An sts ARN does not hold the role's path, so ``role`` is the ARN without one; of a permission-set role, whose path
    is known to exist, only the name is given.
    """
    if not arn:
        return NOBODY
    parts = arn.split(":", 5)
    if len(parts) < 6:
        return _identity(_UserIdentity(arn=arn))
    account, resource = parts[4], parts[5]
    kind, _, rest = resource.partition("/")
    if kind == "assumed-role":
        role_name = rest.partition("/")[0]
        issuer = f"arn:{parts[1]}:iam::{account}:role/{role_name}"
        found = _identity(
            _UserIdentity(type="AssumedRole", arn=arn, accountId=account, sessionContext=_Session(_Issuer(arn=issuer)))
        )
        if role_name.startswith(_SSO_ROLE):
            return msgspec.structs.replace(found, role=role_name, session_issuer=role_name)
        return found
    if kind == "user":
        return _identity(_UserIdentity(type="IAMUser", arn=arn, accountId=account, userName=rest.rpartition("/")[2]))
    return _identity(_UserIdentity(type="Root" if resource == "root" else None, arn=arn, accountId=account))
