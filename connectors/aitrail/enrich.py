"""Who works where: fills department, name, e-mail and principal type from a directory file that the user keeps.

The file is CSV with a header. Columns: ``user`` (user id, e-mail or role ARN as it appears in events; case does not
matter), ``department``, and optionally ``name``, ``email`` and ``type`` (human, service, agent). What a record itself
says is never overwritten.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import cast, get_args

from msgspec import Struct

from aitrail.errors import ConfigError
from aitrail.event import AccessEvent, PrincipalType

_COLUMNS = ("user", "department", "name", "email", "type")
_TYPES = get_args(PrincipalType)


class Person(Struct, frozen=True, gc=False):
    """One row of the directory file, lower-case."""

    user: str
    department: str = ""
    name: str = ""
    email: str = ""
    type: str = ""


class Directory:
    """Looks people up by user id, e-mail or role."""

    def __init__(self, people: Mapping[str, Person] | None = None) -> None:
        self._people = dict(people or {})

    def __len__(self) -> int:
        """How many keys are known."""
        return len(self._people)

    def fill(self, event: AccessEvent) -> None:
        """Fill what ``event`` lacks; does nothing for people it does not know."""
        people = self._people
        if not people:
            return
        person = people.get(event.user_id) or people.get(event.user_email) or people.get(event.role.lower())
        if person is None:
            return
        if not event.department:
            event.department = person.department
        if not event.user_name:
            event.user_name = person.name
        if not event.user_email:
            event.user_email = person.email
        if event.principal_type == "unknown" and person.type:
            event.principal_type = cast("PrincipalType", person.type)


def load_directory(path: Path) -> Directory:
    """Read a directory file; raises ``ConfigError`` that names the file, the line and the fix."""
    people: dict[str, Person] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            names = tuple(rows.fieldnames or ())
            if "user" not in names or "department" not in names:
                raise ConfigError(
                    "the header must have the columns user and department",
                    where=f"{path}:1",
                    hint=f"known columns: {', '.join(_COLUMNS)}; found: {', '.join(names) or 'none'}",
                )
            for row in rows:
                person = Person(**{name: (row.get(name) or "").strip().lower() for name in _COLUMNS})
                if person.type and person.type not in _TYPES:
                    raise ConfigError(
                        f"type {person.type!r} is not one of {', '.join(_TYPES)}", where=f"{path}:{rows.line_num}"
                    )
                for key in (person.user, person.email):
                    if key:
                        people.setdefault(key, person)
    except FileNotFoundError:
        raise ConfigError("no such file", where=f"directory.file = {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot be read ({error})", where=f"directory.file = {path}") from None
    return Directory(people)
