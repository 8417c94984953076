"""Log-in by token: compared in constant time, guessed slowly, remembered in a cookie that scripts cannot read."""

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict

from starlette.requests import Request
from starlette.responses import Response

from aitrail.clock import Clock

IDLE_SECONDS = 3600.0
MAX_SECONDS = 12 * 3600.0
_MAX_SESSIONS = 100
# After so many wrong tokens from one address everybody there waits, each time twice as long.
FREE_TRIES = 3
FIRST_WAIT = 2.0
LONGEST_WAIT = 300.0
# All addresses together: who has many of them is no faster.
_ALL_TRIES = 60
_ALL_SECONDS = 60.0
_MAX_ADDRESSES = 10_000


class Login:
    """Who is logged in, and who has tried. Thread-safe.

    Args:
        token: the one that lets in.
        secure: whether the cookie may only travel over TLS.
    """

    def __init__(self, token: str, clock: Clock, *, secure: bool) -> None:
        self._token = hashlib.sha256(token.encode()).digest()
        self._clock = clock
        self._secure = secure
        # ``__Host-`` binds the cookie to this origin; browsers take it over TLS only.
        self._cookie = "__Host-aitrail" if secure else "aitrail"
        self._sessions: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._recent: list[float] = []
        self._mutex = threading.Lock()

    def known(self, request: Request) -> bool:
        """Whether the request carries a session that has not ended."""
        key = _key(request.cookies.get(self._cookie, ""))
        now = self._clock.monotonic()
        with self._mutex:
            began, seen = self._sessions.get(key, (float("-inf"), float("-inf")))
            if now - seen > IDLE_SECONDS or now - began > MAX_SECONDS:
                self._sessions.pop(key, None)
                return False
            self._sessions[key] = (began, now)
            return True

    def wait(self, address: str) -> float:
        """Seconds until ``address`` may try a token again; 0: now."""
        now = self._clock.monotonic()
        with self._mutex:
            count, last = self._failures.get(address, (0, 0.0))
            own = 0.0
            if count >= FREE_TRIES:
                own = last + min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(count - FREE_TRIES, 20)) - now
            self._recent = [moment for moment in self._recent if now - moment < _ALL_SECONDS]
            shared = self._recent[0] + _ALL_SECONDS - now if len(self._recent) >= _ALL_TRIES else 0.0
            return max(0.0, own, shared)

    def enter(self, offered: str, address: str, response: Response) -> bool:
        """Set the cookie on ``response`` when the token is right; count the failure when it is not."""
        now = self._clock.monotonic()
        digest = hashlib.sha256(offered.strip().encode("utf-8", "surrogatepass")).digest()
        if not hmac.compare_digest(digest, self._token):
            with self._mutex:
                count, _ = self._failures.pop(address, (0, 0.0))
                self._failures[address] = (count + 1, now)
                self._recent.append(now)
                while len(self._failures) > _MAX_ADDRESSES:
                    self._failures.popitem(last=False)
            return False
        session = secrets.token_urlsafe(32)
        with self._mutex:
            self._failures.pop(address, None)
            self._sessions[_key(session)] = (now, now)
            while len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
        response.set_cookie(
            self._cookie, session, path="/", httponly=True, samesite="strict", secure=self._secure, max_age=None
        )
        return True

    def leave(self, request: Request, response: Response) -> None:
        """End the session."""
        with self._mutex:
            self._sessions.pop(_key(request.cookies.get(self._cookie, "")), None)
        response.delete_cookie(self._cookie, path="/", httponly=True, samesite="strict", secure=self._secure)


def _key(session: str) -> bytes:
    """What is kept of a session: a memory dump lets nobody in."""
    return hashlib.sha256(session.encode("utf-8", "surrogatepass")).digest()
