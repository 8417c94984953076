"""Where the collector is in this add-on: pure Python in ``lib``, native modules by processor below it."""

# ruff: noqa: INP001  (Splunk runs the scripts of a folder, no package)
import os
import platform
import ssl
import sys
from pathlib import Path

MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
LIBRARY = Path(__file__).resolve().parent.parent / "lib"


def prepare() -> str:
    """Put the collector at the front of the path; says what is in the way, else nothing."""
    if sys.version_info < (3, 13):
        return f"Python {platform.python_version()}: this add-on needs Python 3.13, which Splunk 10 has"
    native = LIBRARY / f"linux_{MACHINES.get(platform.machine().lower(), '')}"
    if not sys.platform.startswith("linux") or not native.is_dir():
        return f"{sys.platform} on {platform.machine()}: this add-on has native parts for Linux on x86_64 and aarch64"
    sys.path[:0] = [str(native), str(LIBRARY)]
    _trust()
    return ""


def _trust() -> None:
    """A Python whose TLS library finds no authorities gets those that the add-on has; a setting goes before both."""
    known = ssl.get_default_verify_paths()
    if not (known.cafile or known.capath or os.environ.get("SSL_CERT_FILE")):
        import certifi  # noqa: PLC0415  (of the library)

        os.environ["SSL_CERT_FILE"] = certifi.where()


def run(scheme: str) -> int:
    """Run an input as Splunk calls it; gives its exit code."""
    wrong = prepare()
    if wrong:
        sys.stderr.write(f"FATAL {wrong}\n")
        return 1
    from aitrail.runtime.splunk_input import main  # noqa: PLC0415  (of the library)

    return main(scheme, sys.argv)
