"""What is wrong with a piece of content: the file, the line, the reason and the fix."""

from pathlib import Path

from msgspec import Struct


class Problem(Struct, frozen=True, order=True):
    """One finding of the linter.

    Attributes:
        path: the file.
        line: counted from 1.
        reason: what is wrong.
        fix: what to write instead.
    """

    path: Path
    line: int
    reason: str
    fix: str = ""

    def __str__(self) -> str:
        """``file:line: reason; fix``."""
        return f"{self.path}:{self.line}: {self.reason}" + (f"; {self.fix}" if self.fix else "")


class ContentError(Exception):
    """Content that cannot be used; carries every problem that was found, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, sorted(problems))))
        self.problems = sorted(problems)


class Unsupported(Exception):  # noqa: N818  (it says what a target cannot do; the caller decides whether that is an error)
    """A target cannot express a construct exactly; a query is never emitted that says something else."""

    def __init__(self, target: str, what: str) -> None:
        super().__init__(f"{target} cannot express {what}")
        self.target = target
        self.what = what
