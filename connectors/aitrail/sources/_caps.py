"""What one file may cost: every bound of the file source, in one place, each with its reason."""

import msgspec

MIB = 1 << 20

CHUNK = 256 << 10
"""Bytes of text handled at a time. Measured: 64-256 KiB stay in the second-level cache; 1 MiB is 10-30 % slower."""

BATCH_RECORDS = 1_000
"""Records of one batch at most: the unit of the pipeline's transaction."""

BATCH_BYTES = MIB
"""Text after which a batch is closed (one record may be larger)."""

HEAD_BYTES = 1_024
"""An envelope shows its ``Records`` key within this many bytes; what names itself later is a record of its own."""

SETTLE_SECONDS = 5.0
"""A file changed less than this long ago may still be written: its torn end is not called an error yet."""

OPEN_LINE_SECONDS = 86_400.0
"""A writer with a buffer may stop in the middle of a line for long: a day later the line is called torn. If its rest
still comes, it is read all the same."""


class Caps(msgspec.Struct, frozen=True):
    """Bounds against hostile or broken input.

    There is no bound on the size of a document: documents are split while they stream, so memory is a few chunks plus
    one record, however large the file is.

    Attributes:
        record_bytes: one record. The largest real ones are LLM calls with inlined images (a few MB; API Management
            stops at 2 MB a message); 16 MiB leaves room and keeps the peak memory of a worker small.
        text_bytes: decompressed text of one compressed file. A day of a large trail is below 10 GiB; 256 GiB at
            300 MB/s is a quarter of an hour of one core, so a file cannot hold a worker for ever.
        ratio: text per stored byte. Deflate cannot exceed 1,032:1 (RFC 1951: 258 bytes for 2 bits), so a cap that
            shall stop a gzip bomb must lie below; audit logs reach 10-50:1, highly repetitive ones about 100:1.
        ratio_after: text before ``ratio`` is looked at, so that a small file of equal lines passes.
        window_bytes: memory that one zstd frame may ask for (``zstd --long=27`` is the format's recommended limit).
    """

    record_bytes: int = 16 * MIB
    text_bytes: int = 256 << 30
    ratio: int = 250
    ratio_after: int = 32 * MIB
    window_bytes: int = 128 * MIB
