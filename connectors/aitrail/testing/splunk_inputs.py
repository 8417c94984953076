"""splunkd towards a modular input: it starts the script, writes XML to its standard input, and reads its output.

Written from Splunk's developer guide ("Modular inputs"); not from Splunk's code. A ``Run`` reads as splunkd does: event
by event, from a pipe; it can stop reading, and kill.
"""

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import termios
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape, quoteattr

from msgspec import Struct

from aitrail.testing.splunkd_peer import SplunkdPeer

_CHUNK = 1 << 16
_WAIT_SECONDS = 120.0


class Given(Struct, frozen=True):
    """One event as splunkd gets it."""

    stanza: str
    time: str
    source: str
    sourcetype: str
    index: str
    data: str


class Splunkd:
    """Starts modular inputs of one add-on.

    Args:
        command: the interpreter with its options.
        scripts: the add-on's ``bin``.
        checkpoints: a folder; schemes have one each below it.
        peer: the management API.
        environment: of the scripts.
    """

    def __init__(
        self, command: Sequence[str], scripts: Path, checkpoints: Path, peer: SplunkdPeer,
        environment: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._command = list(command)
        self._scripts = scripts
        self._checkpoints = checkpoints
        self._peer = peer
        self._environment = dict(environment)

    def scheme(self, scheme: str) -> ET.Element:
        """What ``--scheme`` says."""
        code, out, log = self._start(scheme, ["--scheme"], "").whole()
        assert code == 0, log
        return ET.fromstring(out)  # noqa: S314 - of the program under test

    def validate(self, scheme: str, name: str, settings: Mapping[str, str]) -> tuple[int, str]:
        """Exit code and message of ``--validate-arguments``."""
        text = f"<items>{self._head(scheme)}<item name={quoteattr(name)}>{_params(settings)}</item></items>"
        code, out, _ = self._start(scheme, ["--validate-arguments"], text).whole()
        message = ET.fromstring(out).findtext("message") if out else ""  # noqa: S314 - of the program under test
        return code, message or ""

    def start(self, scheme: str, stanzas: Mapping[str, Mapping[str, str]]) -> "Run":
        """Start an input, with one or several stanzas (by name)."""
        inputs = "".join(
            f"<stanza name={quoteattr(f'{scheme}://{name}')} app={quoteattr('search')}>{_params(settings)}</stanza>"
            for name, settings in stanzas.items()
        )
        return self._start(scheme, [], f"<input>{self._head(scheme)}<configuration>{inputs}</configuration></input>")

    def checkpoint(self, scheme: str) -> Path:
        """The ``checkpoint_dir`` of a scheme."""
        return self._checkpoints / scheme

    def _head(self, scheme: str) -> str:
        folder = self.checkpoint(scheme)
        folder.mkdir(parents=True, exist_ok=True)
        told = {"server_host": "splunk.example.com", "server_uri": self._peer.url, "session_key": self._peer.session,
                "checkpoint_dir": str(folder)}  # fmt: skip
        return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in told.items())

    def _start(self, scheme: str, arguments: list[str], text: str) -> "Run":
        process = subprocess.Popen(  # noqa: S603 - the program under test
            [*self._command, str(self._scripts / f"{scheme}.py"), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self._environment, cwd="/",
        )  # fmt: skip
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(text.encode())
            process.stdin.close()
        return Run(process)


class Run:
    """A modular input at work."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._out: IO[bytes] = process.stdout
        self._err: IO[bytes] = process.stderr
        self._parser: Any = ET.XMLPullParser(["end"])
        self._ended = False
        self._text: list[bytes] = []

    def read(self, most: int = 1 << 62, *, chunk: int = _CHUNK) -> list[Given]:
        """Events as they come, until there are ``most`` or the pipe is closed; what is cut off is no event."""
        found: list[Given] = []
        while len(found) < most and not self._ended:
            data = os.read(self._out.fileno(), chunk)
            self._ended = not data
            self._parser.feed(data)
            found += [_given(node) for _, node in self._parser.read_events() if node.tag == "event"]
        return found

    def whole(self) -> tuple[int, str, str]:
        """Exit code, output and log of what is no stream."""
        out = self._out.read().decode()
        log = self.log()
        code = self.wait()
        self.close()
        return code, out, log

    def unread(self) -> int:
        """Bytes that are in the pipe."""
        return int(struct.unpack("i", fcntl.ioctl(self._out, termios.FIONREAD, bytes(4)))[0])

    @property
    def running(self) -> bool:
        """Whether it is still at work."""
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL."""
        self._process.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """The exit code."""
        return self._process.wait(_WAIT_SECONDS)

    def log(self) -> str:
        """What it said to splunkd's log; after its end."""
        return self._err.read().decode()

    def finish(self) -> tuple[int, list[Given], str]:
        """Read to the end: exit code, events, log."""
        events = self.read()
        log = self.log()
        code = self.wait()
        self.close()
        return code, events, log

    def close(self) -> None:
        """Give back pipes; ends what still runs."""
        if self._process.poll() is None:
            self.kill()
            self.wait()
        self._out.close()
        self._err.close()


def _params(settings: Mapping[str, str]) -> str:
    return "".join(f"<param name={quoteattr(name)}>{escape(value)}</param>" for name, value in settings.items())


def _given(node: ET.Element) -> Given:
    texts = {name: node.findtext(name) or "" for name in ("time", "source", "sourcetype", "index", "data")}
    return Given(stanza=node.get("stanza") or "", **texts)
