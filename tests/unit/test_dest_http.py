"""The HTTP sender: where it goes, how long it waits, what it believes."""

import time

import pytest

from aitrail.errors import ConfigError, TransientError
from aitrail.net.http import (
    Endpoint,
    HttpSender,
    check_url,
    forbidden_address,
    parse_retry_after,
    proxy_for,
)
from aitrail.testing.certificates import Authority
from aitrail.testing.faults import HttpServer, Reply, http_date
from aitrail.testing.peer import Behaviour, Script

ALL = frozenset({"silent", "slow", "reset_mid_body", "reset_mid_response", "redirect", "flood", "down"})


class Server:
    def __init__(self, answer=None, **more):
        self.seen = []
        self.script = Script(ALL)

        def keep(request, behaviour):
            self.seen.append(request)
            return answer(request) if answer else Reply(200, b'{"ok":true}')

        self.http = HttpServer(keep, self.script, **more)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()


def soon(seconds=5.0):
    return time.monotonic() + seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None), ("120", 120.0), (" 7 ", 7.0), ("1.5", 1.5), ("0", 0.0), ("99999999", 300.0), ("1e400", None),
        ("-3", None), ("nan", None), ("inf", None), ("soon", None), ("Mon, 99 Foo 2026 25:61:00 GMT", None),
        ("0x10", None), ("١٢", 12.0),
    ],
)  # fmt: skip
def test_retry_after(text, expected):
    assert parse_retry_after(text, 1_000_000.0) == expected


def test_retry_after_dates():
    now = 1_795_424_400.0
    assert parse_retry_after(http_date(now + 42), now) == 42.0
    assert parse_retry_after(http_date(now - 42), now) == 0.0
    assert parse_retry_after(http_date(now + 86_400), now) == 300.0
    assert parse_retry_after("Sunday, 06-Nov-94 08:49:37 GMT", now) == 0.0


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.170.2", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "168.63.129.16",
        "100.100.100.200", "192.0.0.192", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_addresses_that_are_off_limits(address):
    assert forbidden_address(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "203.0.113.7", "2001:db8::5"])
def test_addresses_that_are_not(address):
    assert forbidden_address(address) == ""


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest", "https://169.254.169.254", "https://[fd00:ec2::254]:8088", "gopher://x",
        "https://", "https://a:b@hec.example.com", "http://hec.example.com:8088", "https://hec.example.com:99999",
        "https://[::ffff:169.254.169.254]", "",
    ],
)  # fmt: skip
def test_urls_that_are_refused(url):
    with pytest.raises(ConfigError):
        check_url(url, Endpoint(where="destinations.x"))


def test_urls():
    assert check_url("https://hec.example.com/a?b", Endpoint()) == "https://hec.example.com:443"
    assert check_url("http://localhost:8088", Endpoint()) == "http://localhost:8088"
    assert check_url("http://hec.example.com", Endpoint(plain_http=True)) == "http://hec.example.com:80"
    assert check_url("https://[2001:db8::5]:8088", Endpoint()) == "https://[2001:db8::5]:8088"


def test_a_name_that_resolves_to_metadata_is_refused_before_a_byte_goes_out():
    with Server() as server:
        answers = [["127.0.0.1"], ["127.0.0.1", "169.254.169.254"]]
        sender = HttpSender(Endpoint(plain_http=True), resolve=lambda host, port: answers.pop(0))
        url = f"http://hec.example.com:{server.http.tcp.port}/"
        assert sender.request("POST", url, deadline=soon(), content=b"x").status == 200
        sender.close()
        with pytest.raises(ConfigError, match=r"169\.254\.169\.254"):
            sender.request("POST", url, deadline=soon(), content=b"x")
        assert len(server.seen) == 1
        sender.close()


def test_connections_are_kept():
    with Server() as server:
        sender = HttpSender(Endpoint())
        for _ in range(5):
            sender.request("POST", server.http.url, deadline=soon(), content=b"x")
        assert server.http.traffic.connections == 1
        sender.close()


def test_the_deadline_holds_against_a_peer_that_drips():
    """One byte now and then never lets a read time out; the deadline is of the call, not of the read."""

    def drip(connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(100):
            time.sleep(0.1)
            connection.sendall(b"x")

    from aitrail.testing.faults import TcpServer
    from aitrail.testing.peer import Traffic

    server = TcpServer(drip, traffic=Traffic())
    sender = HttpSender(Endpoint())
    try:
        started = time.monotonic()
        with pytest.raises(TransientError, match="no answer in time"):
            sender.request("POST", f"http://localhost:{server.port}/", deadline=soon(0.6), content=b"x")
        assert time.monotonic() - started < 6  # the whole answer takes ten
        with pytest.raises(TransientError):
            sender.request("POST", f"http://localhost:{server.port}/", deadline=time.monotonic() - 1)
    finally:
        sender.close()
        server.close()


def test_an_answer_without_an_end_is_cut_off():
    with Server() as server:
        server.script.add([Behaviour("flood", limit=32 << 20)])
        sender = HttpSender(Endpoint())
        with pytest.raises(TransientError, match="longer than"):
            sender.request("POST", server.http.url, deadline=soon(10), content=b"x")
        sender.close()


def test_redirects():
    def answer(request):
        places = {
            "/a": ("/b", 307),
            "/loop": ("/loop", 308),
            "/post": ("/b", 302),
            "/away": ("http://169.254.169.254/", 307),
        }
        if request.path in places:
            place, status = places[request.path]
            return Reply(status, b"", {"Location": place})
        return Reply(200, b"there")

    with Server(answer) as server:
        sender = HttpSender(Endpoint())
        arrived = sender.request("POST", server.http.url + "/a", deadline=soon(), content=b"body")
        assert (arrived.body, server.seen[-1].body) == (b"there", b"body")
        for path in ("/loop", "/post", "/away"):
            with pytest.raises(ConfigError, match="redirects"):
                sender.request("POST", server.http.url + path, deadline=soon(), content=b"body")
        sender.close()


def test_errors_hold_no_secret_and_say_what_to_do():
    with Server() as server:
        server.script.add([Behaviour("reset_mid_response")])
        sender = HttpSender(Endpoint())
        with pytest.raises(TransientError) as caught:
            sender.request(
                "POST",
                server.http.url + "/?key=hush1",
                deadline=soon(),
                content=b"hush2",
                headers={"Authorization": "hush3"},
            )
        assert "hush" not in f"{caught.value} {caught.value.hint}"
        assert caught.value.__cause__ is None
        server.http.tcp.down()
        with pytest.raises(TransientError, match="refused"):
            sender.request("POST", server.http.url, deadline=soon())
        sender.close()


def test_tls_says_what_is_wrong():
    authority = Authority()
    try:
        with Server(tls=authority.context()) as server:
            good = HttpSender(Endpoint(ca_file=authority.ca_file))
            assert good.request("POST", server.http.url, deadline=soon()).status == 200
            good.close()
            stranger = HttpSender(Endpoint())
            with pytest.raises(ConfigError, match="certificate is refused"):
                stranger.request("POST", server.http.url, deadline=soon())
            stranger.close()
            with pytest.raises(ConfigError, match="CA file"):
                HttpSender(Endpoint(ca_file="/nowhere.pem")).request("POST", server.http.url, deadline=soon())
        with Server() as plain:
            confused = HttpSender(Endpoint())
            with pytest.raises(ConfigError, match="does not speak TLS"):
                confused.request("POST", plain.http.url.replace("http:", "https:"), deadline=soon())
            confused.close()
    finally:
        authority.close()


def test_mutual_tls():
    authority = Authority()
    try:
        certificate, key = authority.client_certificate()
        with Server(tls=authority.context(client_ca=True)) as server:
            known = HttpSender(Endpoint(ca_file=authority.ca_file, client_certificate=certificate, client_key=key))
            assert known.request("POST", server.http.url, deadline=soon()).status == 200
            known.close()
            unknown = HttpSender(Endpoint(ca_file=authority.ca_file))
            with pytest.raises((ConfigError, TransientError)) as caught:
                unknown.request("POST", server.http.url, deadline=soon())
            assert "certificate" in str(caught.value) or "lost" in str(caught.value)
            assert len(server.seen) == 1
            unknown.close()
    finally:
        authority.close()


def test_proxy_from_settings_and_environment(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example.com")
    assert proxy_for("https://hec.example.com:8088", "") == "http://proxy.example.com:3128"
    assert proxy_for("https://inside.example.com:8088", "") == ""
    assert proxy_for("https://localhost:8088", "") == ""
    assert proxy_for("https://hec.example.com:8088", "none") == ""
    assert proxy_for("https://hec.example.com:8088", "http://other.example.com:1") == "http://other.example.com:1"
