"""HTTP/1.1 as uvicorn speaks it, with a limit on how long a client may take to send its headers.

uvicorn bounds the pause between two requests of a connection, not the first bytes of one: a client that sends a header
a minute would hold its connection for ever.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


def timed_protocol(seconds: float) -> type[asyncio.Protocol]:
    """Make a protocol class whose connections must show a whole request head within ``seconds`` of its first byte."""

    class Timed(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        """The installed HTTP implementation, watched until its request head is complete."""

        _watch: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._arm()

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            super().data_received(data)
            if self.cycle is not before:
                self._disarm()
            elif self._watch is None and (self.cycle is None or self.cycle.response_complete):
                self._arm()  # the next head of a kept connection has begun

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def _arm(self) -> None:
            self._watch = asyncio.get_running_loop().call_later(seconds, self._give_up)

        def _disarm(self) -> None:
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None

        def _give_up(self) -> None:
            self._watch = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Timed
