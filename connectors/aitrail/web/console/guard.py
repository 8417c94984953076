"""What stands before every page: who may ask, from where, and what a browser may do with the answer.

Threats and what meets them here:

- a web page elsewhere that lets its own name point at this machine (DNS rebinding): the Host header must be an address,
  ``localhost`` or a name that was allowed;
- a web page elsewhere that sends requests from the viewer's browser: fetch metadata (``Sec-Fetch-Site``) of another
  site gets nothing but a navigation, the cookie is SameSite=Strict, nothing but the log-in changes any state;
- text of an event that becomes markup: no inline script or style runs, nothing is loaded from or sent to anywhere else;
- frames, sniffing, referrers: refused, off, empty.
"""

import ipaddress
import re
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'none'; "
    "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), interest-cohort=()",
}
_METHODS = ("GET", "HEAD")
_HOST = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]{1,5})?")
# Paths that who is not logged in may see: the form, and what it looks like.
_OPEN = ("/login", "/static/")


class Guard:
    """Wraps the application.

    Args:
        app: what answers those who may ask.
        names: host names that are allowed besides ``localhost`` and addresses.
        known: whether a request comes from somebody who is logged in; None: nobody has to be.
        secure: whether the browser speaks TLS with us.
    """

    def __init__(
        self, app: ASGIApp, *, names: tuple[str, ...], known: Callable[[Request], bool] | None, secure: bool
    ) -> None:
        self._app = app
        self._names = frozenset({"localhost", *names})
        self._known = known
        self._headers = dict(HEADERS)
        if secure:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                # Only what is the same for everybody may be kept by the browser.
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refused = self._refusal(Request(scope))
        await (refused or self._app)(scope, receive, guarded)

    def _refusal(self, request: Request) -> Response | None:
        headers = Headers(scope=request.scope)
        path = request.url.path
        if not self._host_allowed(headers):
            return PlainTextResponse("this name is not one of this console; see aitrail console --allow-host\n", 421)
        if not _same_site(headers, reading=request.method in _METHODS):
            return PlainTextResponse("another site may not ask this console\n", 403)
        if request.method not in _METHODS and not (request.method == "POST" and path in ("/login", "/logout")):
            return PlainTextResponse("this console only reads\n", 405, {"Allow": "GET, HEAD"})
        if self._known is None or path.startswith(_OPEN) or self._known(request):
            return None
        if headers.get("accept", "").startswith("text/html") or headers.get("sec-fetch-mode") == "navigate":
            return RedirectResponse("/login", 303)
        return PlainTextResponse("log in first: /login\n", 401)

    def _host_allowed(self, headers: Headers) -> bool:
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            return False
        found = _HOST.fullmatch(hosts[0].strip().lower())
        if found is None:
            return False
        name = found["six"] or found["name"]
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)  # what is asked for by address was not looked up under somebody's name
        except ValueError:
            return False
        return True


def _same_site(headers: Headers, *, reading: bool) -> bool:
    """Whether a browser says that a page of ours, the viewer himself or no page at all asks.

    A link on another site may lead here (a navigation to a whole page); a form, a script, an image or a frame of it may
    not.
    """
    site = headers.get("sec-fetch-site", "none")
    if site in ("same-origin", "none"):
        return True
    return reading and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
