"""rsyslog and syslog-ng as they are packaged: those of the machine, or Debian packages unpacked into ``.cache``."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from aitrail.testing.certificates import Authority

_CACHE = Path(__file__).parents[2] / ".cache" / "syslog-servers"
_PACKAGES = (
    *("rsyslog", "rsyslog-openssl", "libestr0", "libfastjson4", "liblognorm5"),
    *("syslog-ng-core", "libivykis0", "libwrap0", "libnet1", "libpcre3", "libpcre2-8-0", "libjson-c5"),
    *("libsystemd0", "libglib2.0-0"),
)
_SECONDS = 30.0
_FIRST = "first-message-of-all"


class Server:
    """One running receiver: where it listens, and what it has written."""

    def __init__(self, tls_port: int, tcp_port: int, output: Path, ca_file: str, pid: int) -> None:
        self.tls_port, self.tcp_port, self._output, self.ca_file, self.pid = tls_port, tcp_port, output, ca_file, pid

    def lines(self, count: int) -> list[str]:
        """Wait until so many lines are there; gives them all."""
        until = time.monotonic() + _SECONDS
        found: list[str] = []
        while len(found) < count and time.monotonic() < until:
            with contextlib.suppress(OSError):
                found = self._output.read_text(encoding="utf-8").split("\n")[:-1]
            found = [line for line in found if _FIRST not in line]
            time.sleep(0.05)
        return found

    def await_stop(self) -> None:
        """Wait until every thread stands still after SIGSTOP: until one of them has taken the signal, all go on."""
        until = time.monotonic() + _SECONDS
        while {_state(task) for task in Path(f"/proc/{self.pid}/task").iterdir()} - {"T"}:
            if time.monotonic() > until:
                raise AssertionError("it does not stop")
            time.sleep(0.01)

    def open_output(self) -> None:
        """Have it open its output file by a first message, over a connection without TLS.

        rsyslog (8.2302) closes the socket of a TLS session twice. When its writer opens the output file between the
        two, it is the file that the second one closes, and what is written to it goes into the next connection.
        """
        until = time.monotonic() + _SECONDS
        with socket.create_connection(("127.0.0.1", self.tcp_port), _SECONDS) as first:
            message = f"<110>1 - - {_FIRST} - - - open".encode()
            first.sendall(b"%d %b" % (len(message), message))
            while not (self._output.exists() and _FIRST in self._output.read_text(encoding="utf-8")):
                if time.monotonic() > until:
                    raise AssertionError("its output file does not open")
                time.sleep(0.02)


def _state(task: Path) -> str:
    """The state of a thread, as proc(5) gives it behind the name in brackets; one that has ended stands still."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (task / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    return "T"


def _unpacked() -> Path:
    """Unpack the servers beside the system: nothing is installed, nothing is started by a package."""
    root = _CACHE / "root"
    if (root / ".complete").exists():
        return root
    packages = _CACHE / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise RuntimeError("neither installed nor to be had: no apt-get here")
    subprocess.run(["apt-get", "-qq", "update"], capture_output=True)
    for package in _PACKAGES:
        # Names differ between releases; what is missing shows when a server does not start.
        subprocess.run(["apt-get", "-qq", "download", package], cwd=packages, capture_output=True)
    for file in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(file), str(root)], capture_output=True)
    if not (root / "usr/sbin/rsyslogd").exists():
        raise RuntimeError("the packages cannot be downloaded")
    (root / ".complete").touch()
    return root


def _binary(name: str) -> tuple[str, dict[str, str], Path]:
    """Give the program, its environment and the root that its modules lie under."""
    installed = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin")
    if installed and (name != "rsyslogd" or any(Path("/usr/lib").glob("*/rsyslog/lmnsd_ossl.so"))):
        return installed, dict(os.environ), Path("/")
    root = _unpacked()
    libraries = [*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*"), root / "usr/lib/syslog-ng"]
    return (
        str(root / "usr/sbin" / name),
        {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))},
        root,
    )


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _rsyslog(directory: Path, files: Mapping[str, str], tls: int, tcp: int) -> tuple[list[str], dict[str, str]]:
    program, environment, root = _binary("rsyslogd")
    config = directory / "rsyslog.conf"
    config.write_text(f"""
global(workDirectory="{directory}" maxMessageSize="128k" DefaultNetstreamDriver="ossl"
       DefaultNetstreamDriverCAFile="{files["ca"]}" DefaultNetstreamDriverCertFile="{files["certificate"]}"
       DefaultNetstreamDriverKeyFile="{files["key"]}" parser.escapeControlCharactersOnReceive="off")
module(load="imtcp")
template(name="raw" type="string" string="%rawmsg%\\n")
ruleset(name="write") {{ action(type="omfile" file="{directory}/out" template="raw") }}
input(type="imtcp" port="{tls}" StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon"
      ruleset="write")
input(type="imtcp" port="{tcp}" StreamDriver.Name="ptcp" ruleset="write")
""")
    modules = next(iter(root.glob("usr/lib/*/rsyslog")), root)
    command = [program, "-n", "-f", str(config), "-i", str(directory / "pid"), "-M", str(modules)]
    return command, environment


def _syslog_ng(directory: Path, files: Mapping[str, str], tls: int, tcp: int) -> tuple[list[str], dict[str, str]]:
    program, environment, root = _binary("syslog-ng")
    version = subprocess.run([program, "--version"], env=environment, capture_output=True, text=True).stdout
    number = next(line.split(": ")[1] for line in version.splitlines() if line.startswith("Config version"))
    config = directory / "syslog-ng.conf"
    config.write_text(f"""@version: {number}
options {{ log-msg-size(131072); }};
source s {{
    syslog(ip("127.0.0.1") port({tls}) transport("tls")
           tls(key-file("{files["key"]}") cert-file("{files["certificate"]}") peer-verify(optional-untrusted)));
    syslog(ip("127.0.0.1") port({tcp}) transport("tcp"));
}};
destination d {{ file("{directory}/out" template("<$PRI>1 $S_ISODATE $HOST $PROGRAM - $MSGID - $MSG\\n")); }};
log {{ source(s); destination(d); }};
""")
    modules = next(iter(sorted(root.glob("usr/lib/syslog-ng/*/"))), root)
    command = [program, "-F", "--no-caps", "-f", str(config), "-R", str(directory / "persist")]
    command += ["-c", str(directory / "control"), "--pidfile", str(directory / "pid"), f"--module-path={modules}"]
    return command, environment


SERVERS = {"rsyslog": _rsyslog, "syslog-ng": _syslog_ng}


@contextlib.contextmanager
def running(name: str, directory: Path) -> Iterator[Server]:
    """Run one server; skips the test where it cannot be had, except in CI."""
    authority = Authority()
    try:
        issued = authority._authority.issue_cert("localhost", "127.0.0.1")
        files = {"ca": authority.ca_file, "certificate": str(directory / "cert.pem"), "key": str(directory / "key.pem")}
        Path(files["certificate"]).write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(files["key"])
        tls, tcp = _free_ports(2)
        try:
            command, environment = SERVERS[name](directory, files, tls, tcp)
        except (RuntimeError, OSError) as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"{name}: {error}")
        with (directory / "log").open("w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _await(process, tls, tcp, directory / "log")
            server = Server(tls, tcp, directory / "out", authority.ca_file, process.pid)
            server.open_output()
            yield server
        finally:
            process.terminate()
            process.wait(_SECONDS)
    finally:
        authority.close()


def _listens(port: int) -> bool:
    """Whether somebody listens there; without connecting, which would be a session that fails (see open_output)."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                local, state = line.split()[1], line.split()[3]
                if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                    return True
    return False


def _await(process: "subprocess.Popen[bytes]", tls: int, tcp: int, log: Path) -> None:
    until = time.monotonic() + _SECONDS
    for port in (tls, tcp):
        while True:
            if _listens(port):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"it does not listen: {log.read_text()[-2_000:]}")
            time.sleep(0.05)
