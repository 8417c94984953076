"""What ``[sources.NAME]`` of type ``file`` may say."""

from typing import Annotated

from msgspec import Meta, Struct


class FileSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the file source."""

    paths: Annotated[tuple[str, ...], Meta(description="Files, directories and globs.")] = ()
    max_file_mb: Annotated[int, Meta(description="Cap on one file's decompressed size, in MiB.", gt=0)] = 65536
