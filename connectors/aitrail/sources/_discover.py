"""Paths, directories and globs -> files, lazily and in an order that keeps neighbours together.

Names sort naturally (``app.2.log`` before ``app.10.log``). Blobs of Azure diagnostic settings
(``insights-logs-<category>/resourceId=.../y=/m=/d=/h=/m=/PT1H.json``, Microsoft Learn "Azure resource logs") sort by
hour first and category second, so that the rows of one request that different categories hold come near each other.
Directories are walked with ``scandir``, one directory in memory at a time. What cannot be read is told, never raised.
"""

# Paths stay strings: there may be millions of them, and pathlib costs more than the stat.
# ruff: noqa: PTH100, PTH111, PTH112, PTH114, PTH116, PTH118, PTH119, PTH207

import glob
import heapq
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence

STDIN = "-"
_MANY = 50_000
"""A directory with more entries is sorted by plain text: the keys of a natural sort would take most of the memory."""

_DIGITS = re.compile(r"(\d+)")
_AZURE = re.compile(
    r"(?P<root>.*?)insights-logs-(?P<category>[^/]+)/(?P<resource>.*?)/?"
    r"y=(?P<y>\d{4})/m=(?P<mo>\d\d)/d=(?P<d>\d\d)/h=(?P<h>\d\d)/m=(?P<mi>\d\d)/(?P<name>[^/]*)\Z",
    re.IGNORECASE | re.DOTALL,
)
_CATEGORY = re.compile(r"insights-logs-", re.IGNORECASE)
_YEAR = re.compile(r"y=\d{4}\Z", re.IGNORECASE)
_GLOB = re.compile(r"[*?\[]")

_STORE = "aitrail.db"
"""A directory that holds this is a store: `aitrail collect .` must not read what it writes, nor the keys in it."""

_READ = "give this user permission to read it"
Note = Callable[[str, str], None]
"""Is told (what was left out and why, how to fix it); the second is empty when nothing is wrong."""

SortKey = tuple[tuple[tuple[int, int, str], ...], tuple[str, ...]]


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which runs of digits compare as numbers."""
    parts = _DIGITS.split(name)
    return tuple((0, int(part), part) if place % 2 else (1, 0, part) for place, part in enumerate(parts))


def sort_key(path: str) -> SortKey:
    """Return the key that puts ``path`` into reading order."""
    match = _AZURE.match(path)
    if match is None:
        return natural(path), ()
    hour = match.group("y", "mo", "d", "h", "mi")
    # Behind the root every category of an hour comes before the next hour.
    root = natural(match["root"] + "insights-logs-")
    return (*root, (1, 0, "/".join(hour))), match.group("category", "resource", "name")


class Discovery:
    """Finds the files below ``paths``; ``note`` is told what was left out and why."""

    def __init__(
        self, paths: Sequence[str], *, follow_symlinks: bool, recursive: bool, note: Note | None = None
    ) -> None:
        self._paths = paths
        self._follow = follow_symlinks
        self._recursive = recursive
        self._note: Note = note or (lambda _what, _fix: None)
        self._visited: set[tuple[int, int]] = set()

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield (absolute path, status) of every regular file, each path once; ``-`` is not among them."""
        for path in self._ordered():
            try:
                status = os.stat(path)
            except OSError as error:
                self._note(f"{path}: {reason(error)}; not read", _fix(error))
                continue
            if stat.S_ISREG(status.st_mode):
                yield path, status
            else:
                what = f"{path}: {kind(status.st_mode)}, not a regular file; not read"
                self._note(what, "name regular files, or send its output to stdin and name '-'")

    def _ordered(self) -> Iterator[str]:
        """Yield the paths of files (and of what turns out to be none)."""
        self._visited.clear()
        categories: list[str] = []
        for path in self._paths:
            if path == STDIN:
                continue
            for root in self._expand(path):
                if os.path.isdir(root) and _CATEGORY.match(os.path.basename(root)):
                    categories.append(root)
                    continue
                yield from self._merged(categories)
                categories = []
                if os.path.isdir(root):
                    yield from self._walk(root)
                else:
                    yield root
        yield from self._merged(categories)

    def _expand(self, path: str) -> Iterable[str]:
        """Return what an argument names: itself, or what its pattern finds (in reading order)."""
        absolute = os.path.abspath(os.path.expanduser(path))
        if os.path.lexists(absolute) or not _GLOB.search(path):
            return [absolute]
        found = [one for one in glob.iglob(absolute, recursive=True) if self._wanted(one)]
        if not found:
            self._note(
                f"{path}: the pattern finds nothing", "correct it, and quote it so that the shell leaves it alone"
            )
        return sorted(found, key=sort_key)

    def _wanted(self, path: str) -> bool:
        if self._follow or not os.path.islink(path):
            return True
        self._note(f"{path}: a symbolic link; not followed", "")
        return False

    def _merged(self, categories: list[str]) -> Iterator[str]:
        """Yield the files of the category directories, hour by hour."""
        streams = [self._walk(top) for root in categories for top in self._year_roots(root)]
        return heapq.merge(*streams, key=sort_key) if len(streams) > 1 else iter(streams[0] if streams else ())

    def _year_roots(self, root: str) -> Iterator[str]:
        """Yield the directories below ``root`` that hold ``y=`` directories, or ``root`` when there are none."""
        waiting, found = [root], False
        while waiting and self._recursive:
            top = waiting.pop()
            directories = self._list(top)[0]
            if any(_YEAR.match(name) for name in directories):
                found = True
                yield top
            else:
                waiting.extend(os.path.join(top, name) for name in reversed(directories))
        if not found:
            yield root

    def _walk(self, root: str) -> Iterator[str]:
        """Yield the files below ``root`` in order, without recursion: directories can be deep."""
        waiting: list[Iterator[tuple[str, bool]]] = [self._entries(root)]
        while waiting:
            entry = next(waiting[-1], None)
            if entry is None:
                waiting.pop()
            elif not entry[1]:
                yield entry[0]
            elif self._recursive:
                waiting.append(self._entries(entry[0]))

    def _entries(self, directory: str) -> Iterator[tuple[str, bool]]:
        """Yield (path, is it a directory) of one directory, category directories merged into files."""
        if self._follow and not self._first_visit(directory):
            return
        directories, files = self._list(directory)
        categories = [name for name in directories if _CATEGORY.match(name)] if self._recursive else []
        if categories:
            for path in self._merged([os.path.join(directory, name) for name in categories]):
                yield path, False
            taken = set(categories)
            directories = [name for name in directories if name not in taken]
        if len(directories) + len(files) > _MANY:
            names = [(name, False) for name in files] + [(name, True) for name in directories]
            names.sort()
        else:
            names = [(name, False) for name in files] + [(name, True) for name in directories]
            names.sort(key=lambda item: natural(item[0]))
        for name, is_directory in names:
            yield os.path.join(directory, name), is_directory

    def _list(self, directory: str) -> tuple[list[str], list[str]]:
        """Return the names of the directories (sorted) and of everything else in ``directory``."""
        directories: list[str] = []
        files: list[str] = []
        hidden = 0
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name == _STORE:
                        self._note(f"{directory}: an aitrail store; what is in it is not read", "")
                        return [], []
                    if entry.name.startswith("."):
                        hidden += 1
                    elif entry.is_symlink() and not self._follow:
                        self._note(f"{entry.path}: a symbolic link; not followed", "")
                    elif _is_directory(entry):
                        directories.append(entry.name)
                    else:
                        files.append(entry.name)
        except OSError as error:
            self._note(f"{directory}: {reason(error)}; what is in it is not read", _fix(error))
        if hidden:
            self._note(f"{directory}: {hidden} hidden entries (names that start with a dot) are not read", "")
        directories.sort(key=natural)
        return directories, files

    def _first_visit(self, directory: str) -> bool:
        """Guard against loops of symbolic links."""
        try:
            status = os.stat(directory)
        except OSError as error:
            self._note(f"{directory}: {reason(error)}; what is in it is not read", _fix(error))
            return False
        identity = (status.st_dev, status.st_ino)
        if identity in self._visited:
            return False
        self._visited.add(identity)
        return True


def _is_directory(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def kind(mode: int) -> str:
    """Name what a path is that is no regular file."""
    for test, name in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    ):
        if test(mode):
            return name
    return "something else"


def _fix(error: OSError) -> str:
    return _READ if isinstance(error, PermissionError) else "name something that exists"


def reason(error: OSError) -> str:
    """Say what went wrong, without the path."""
    return (error.strerror or type(error).__name__).lower()
