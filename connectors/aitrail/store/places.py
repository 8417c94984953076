"""Where addresses are, by a table that the user supplies: a CSV file of networks, as the free geolocation files are.

Columns, by the names in its first line: ``cidr`` or ``network``, ``latitude``, ``longitude`` (degrees), and ``label``
if there is one; others are passed over. Where networks lie in one another the narrowest counts. Nothing is looked up
over a network, and only addresses that are asked for are kept, so a file of millions of networks needs little memory.
"""

import csv
import ipaddress
import socket
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from aitrail.errors import ConfigError

_NETWORKS = ("cidr", "network")
# IP version and the address as a number.
_Number = tuple[int, int]
# The places of network, latitude, longitude and label in a row.
_Columns = tuple[int, int, int, int | None]
_HINT = "the first line names the columns: cidr,latitude,longitude,label"


class Place(Struct, frozen=True, gc=False):
    """A place on Earth, in degrees."""

    latitude: float
    longitude: float
    label: str = ""


class Places:
    """The places of one file; what was looked up is remembered as long as the file stays the same.

    Raises:
        ConfigError: the file cannot be read or has no such columns.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = (0, 0)
        self._known: dict[str, Place | None] = {}
        self._search({})

    def locate(self, addresses: Iterable[str]) -> list[tuple[str, float, float, str]]:
        """Give (address, latitude, longitude, label) of those ``addresses`` that have a place, sorted.

        Raises:
            ConfigError: the file cannot be read, or a line of it is wrong; the message names the line.
        """
        stamp = self._changed()
        if stamp != self._stamp:
            self._stamp, self._known = stamp, {}
        wanted = sorted(set(addresses))
        new = [address for address in wanted if address not in self._known]
        if new:
            found = self._search({number: address for address in new if (number := _number(address)) is not None})
            self._known.update((address, found.get(address)) for address in new)
        located = [(address, place) for address in wanted if (place := self._known[address]) is not None]
        return [(address, place.latitude, place.longitude, place.label) for address, place in located]

    def _changed(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise self._unreadable(error) from None
        return status.st_mtime_ns, status.st_size

    def _unreadable(self, error: OSError) -> ConfigError:
        return ConfigError(f"cannot be read ({error.strerror})", where=str(self._path), hint="[detect] places names it")

    def _search(self, wanted: Mapping[_Number, str]) -> dict[str, Place]:
        """The places of the addresses ``wanted``, in one pass over the file; of none, only its head is read."""
        try:
            with self._path.open(encoding="utf-8", errors="replace", newline="") as lines:
                rows = csv.reader(lines)
                columns = self._columns(next(rows, []))
                return self._matched(rows, columns, wanted) if wanted else {}
        except OSError as error:
            raise self._unreadable(error) from None
        except csv.Error as error:
            raise ConfigError(f"no CSV: {error}", where=str(self._path), hint=_HINT) from None

    def _matched(self, rows: Any, columns: _Columns, wanted: Mapping[_Number, str]) -> dict[str, Place]:
        order = sorted(wanted)
        best: dict[str, tuple[int, Place]] = {}
        for row in rows:
            if not row:
                continue
            try:
                version, first, last, bits = _range(row[columns[0]])
            except (ValueError, IndexError, OSError):
                raise self._wrong(rows.line_num, "no network") from None
            place = bisect_left(order, (version, first))
            while place < len(order) and order[place] <= (version, last):
                address = wanted[order[place]]
                located = self._place(row, columns, rows.line_num)
                if located is not None and bits >= best.get(address, (-1, located))[0]:
                    best[address] = (bits, located)
                place += 1
        return {address: located for address, (_, located) in best.items()}

    def _place(self, row: list[str], columns: _Columns, line: int) -> Place | None:
        """The place of a line; None where it names none, which the free files do for some networks."""
        _, latitude, longitude, label = columns
        try:
            if not row[latitude].strip() or not row[longitude].strip():
                return None
            found = Place(float(row[latitude]), float(row[longitude]), row[label] if label is not None else "")
        except (ValueError, IndexError):
            raise self._wrong(line, "latitude and longitude are no numbers") from None
        if not (-90 <= found.latitude <= 90 and -180 <= found.longitude <= 180):
            raise self._wrong(line, "latitude and longitude are degrees: -90 to 90, -180 to 180")
        return found

    def _wrong(self, line: int, reason: str) -> ConfigError:
        return ConfigError(reason, where=f"{self._path}:{line}", hint="e.g. 203.0.113.0/24,1.35,103.82,Singapore")

    def _columns(self, head: list[str]) -> _Columns:
        names = [name.strip().lstrip("\ufeff").lower() for name in head]
        network = next((names.index(name) for name in _NETWORKS if name in names), None)
        if network is None or "latitude" not in names or "longitude" not in names:
            raise ConfigError("no table of places", where=f"{self._path}:1", hint=_HINT)
        label = names.index("label") if "label" in names else None
        return network, names.index("latitude"), names.index("longitude"), label


def _number(address: str) -> _Number | None:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    return found.version, int(found)


def _range(network: str) -> tuple[int, int, int, int]:
    """Version, first and last address and prefix length; without ``ipaddress``, which is slow for millions of lines."""
    head, _, tail = network.strip().partition("/")
    version, family, size = (6, socket.AF_INET6, 128) if ":" in head else (4, socket.AF_INET, 32)
    bits = int(tail) if tail else size
    if not 0 <= bits <= size:
        raise ValueError(network)
    rest = (1 << (size - bits)) - 1
    first = int.from_bytes(socket.inet_pton(family, head), "big") & ~rest
    return version, first, first | rest, bits
