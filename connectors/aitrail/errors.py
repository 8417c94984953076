"""The error tree: what a failure means for the flow decides its class.

::

    AitrailError
    ├── ConfigError        a setting is wrong: stop, say which field of which file and how to fix it
    ├── AuthError          credentials refused: refresh once, then alarm; nothing is dropped meanwhile
    ├── TransientError     try again later; ``retry_after`` seconds when the peer said so
    ├── RejectedError      one event is refused for good: dead-letter it, go on with the rest
    ├── CorruptInputError  bytes of a source cannot be read further: dead-letter the place, go on
    └── StoreError         the embedded store cannot be used (locked, newer version, damaged)

Anything else that is raised is a bug: crash and commit nothing.
No message ever holds content of a record: only names, places, codes and sizes.
"""


class AitrailError(Exception):
    """Base of all errors that aitrail raises on purpose.

    Attributes:
        hint: one sentence that says how to fix it; empty when there is nothing to say.
        exit_code: the process exit code when this ends a command (see docs/cli.md).
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def sentence(self) -> str:
        """What is wrong and how to fix it, on one line: for logs and states, where nobody asks for the hint."""
        return f"{self} ({self.hint})" if self.hint else str(self)


class ConfigError(AitrailError):
    """A setting is missing or wrong; ``where`` names file and field, e.g. ``aitrail.toml: sources.trail.path``."""

    exit_code = 2

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.where = where


class AuthError(AitrailError):
    """The peer refused the credentials, or a permission is missing; the message names it."""

    exit_code = 3


class TransientError(AitrailError):
    """The call may succeed later; ``retry_after`` is in seconds, None when the peer did not say."""

    exit_code = 4

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class RejectedError(AitrailError):
    """One event is refused for good; ``code`` is a bounded reason code."""

    def __init__(self, code: str, message: str = "", *, hint: str = "") -> None:
        super().__init__(message or code, hint=hint)
        self.code = code


class CorruptInputError(AitrailError):
    """A source's bytes cannot be read past ``position`` (decompressed offset); ``code`` is a bounded reason code."""

    def __init__(self, code: str, message: str = "", *, position: int = 0) -> None:
        super().__init__(message or code)
        self.code = code
        self.position = position


class StoreError(AitrailError):
    """The embedded store cannot be used: held by another writer, written by a newer version, or damaged."""

    exit_code = 5
