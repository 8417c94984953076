"""Certificates for fault servers: a private authority, and every way in which a certificate can be wrong.

Needs ``trustme`` (in the ``dev`` extra); nothing that runs in production imports this module.
"""

import ssl
import tempfile
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

Flaw = Literal["", "tls_expired", "tls_wrong_host", "tls_self_signed", "tls_old"]
HOST_NAMES = ("localhost", "127.0.0.1")


class Authority:
    """A certificate authority of its own, trusted through ``ca_file`` only.

    Attributes:
        ca_file: PEM file that a client is to trust.
    """

    def __init__(self) -> None:
        import trustme  # noqa: PLC0415 - a test dependency, needed by this class alone

        self._make: Any = trustme.CA
        self._authority = trustme.CA()
        self._directory = tempfile.TemporaryDirectory(prefix="aitrail-ca-", ignore_cleanup_errors=True)
        self.ca_file = str(Path(self._directory.name) / "ca.pem")
        self._authority.cert_pem.write_to_path(self.ca_file)

    def context(self, flaw: Flaw = "", *, client_ca: bool = False) -> ssl.SSLContext:
        """Give a server context whose certificate is right, or wrong in one way.

        Args:
            flaw: what is wrong with it.
            client_ca: ask the client for a certificate of this authority, too.
        """
        issuer = self._make() if flaw == "tls_self_signed" else self._authority
        names = ("elsewhere.example.com",) if flaw == "tls_wrong_host" else HOST_NAMES
        expires = datetime.now(UTC) - timedelta(days=1) if flaw == "tls_expired" else None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if flaw == "tls_old":
            # OpenSSL offers 1.1 only below its default security level.
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # they are out of date: that is the point
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = ssl.TLSVersion.TLSv1_1
        issuer.issue_cert(*names, not_before=_long_ago(), not_after=expires).configure_cert(context)
        if client_ca:
            self._authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_certificate(self) -> tuple[str, str]:
        """Write a client certificate of this authority; gives the paths of certificate and key."""
        issued = self._authority.issue_cert("collector@example.com")
        certificate, key = (Path(self._directory.name) / name for name in ("client.pem", "client.key"))
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return str(certificate), str(key)

    def close(self) -> None:
        """Remove the files."""
        self._directory.cleanup()


def _long_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=30)
