"""The app's icons, drawn by code: a trail of three points on a rounded square. PNG (RFC 2083) with a palette."""

import struct
import zlib

_GROUND, _TRAIL, _POINTS = (23, 43, 77), (94, 180, 255), ((0.26, 0.72), (0.5, 0.38), (0.76, 0.6))
_SAMPLES = 4


def icon(size: int) -> bytes:
    """A square PNG with ``size`` pixels a side."""
    pixels = [_pixel(x, y, size) for y in range(size) for x in range(size)]
    colours = {colour: place for place, colour in enumerate(sorted(set(pixels)))}
    lines = [bytes(colours[colour] for colour in pixels[start : start + size]) for start in range(0, size * size, size)]
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 3, 0, 0, 0)),
        (b"PLTE", b"".join(colour[:3] for colour in colours)),
        (b"tRNS", b"".join(colour[3:] for colour in colours)),
        # Stored, not deflated: compressors differ between versions of zlib, these bytes must not.
        (b"IDAT", _stored(b"".join(b"\0" + line for line in lines))),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """A zlib stream of blocks that are not compressed (RFC 1950, 1951)."""
    blocks = [data[start : start + 65_535] for start in range(0, len(data), 65_535)]
    parts = [
        struct.pack("<BHH", number == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for number, block in enumerate(blocks)
    ]
    return b"\x78\x01" + b"".join(parts) + struct.pack(">I", zlib.adler32(data))


def _pixel(x: int, y: int, size: int) -> bytes:
    """The mean of several samples, so that edges are smooth; whole numbers, so that every machine draws the same."""
    total = [0, 0, 0, 0]
    for number in range(_SAMPLES * _SAMPLES):
        across = (x + (number % _SAMPLES + 0.5) / _SAMPLES) / size
        down = (y + (number // _SAMPLES + 0.5) / _SAMPLES) / size
        for place, part in enumerate(_colour(across, down)):
            total[place] += part
    return bytes(part // _SAMPLES**2 for part in total)


def _colour(x: float, y: float) -> tuple[int, int, int, int]:
    inset = 0.2
    beyond_x, beyond_y = max(abs(x - 0.5) - (0.5 - inset), 0), max(abs(y - 0.5) - (0.5 - inset), 0)
    if beyond_x * beyond_x + beyond_y * beyond_y > inset * inset:
        return (0, 0, 0, 0)
    if any((x - a) ** 2 + (y - b) ** 2 < 0.0121 for a, b in _POINTS):
        return (255, 255, 255, 255)
    return (*_TRAIL, 255) if any(map(_near, [(x, y)] * 2, _POINTS, _POINTS[1:])) else (*_GROUND, 255)


def _near(at: tuple[float, float], start: tuple[float, float], end: tuple[float, float]) -> bool:
    """Whether a point is close to a line between two others."""
    run, rise = end[0] - start[0], end[1] - start[1]
    along = min(max(((at[0] - start[0]) * run + (at[1] - start[1]) * rise) / (run * run + rise * rise), 0), 1)
    off_x, off_y = at[0] - start[0] - along * run, at[1] - start[1] - along * rise
    return off_x * off_x + off_y * off_y < 0.0016
