"""Watchlists: what people keep in the workspace beside the rules' own lists, each with rows to begin with.

The lists that rules compare with are compiled into them (``content/watchlists``); these name owners and restrictions
for incidents, and approvals that change more often than rules are built.
"""

import csv
import io
from typing import Any

from msgspec import Struct

from aitrail.compiler.emit.sentinel_facts import TITLE, WORKSPACE, guid, resource, template
from aitrail.contentdir import content_path


class Watchlist(Struct, frozen=True):
    """A watchlist with its columns and first rows; the first column is the search key."""

    alias: str
    title: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def id(self) -> str:
        """Its identity in the package."""
        return guid("watchlist", self.alias)

    @property
    def text(self) -> str:
        """As CSV."""
        made = io.StringIO()
        csv.writer(made, lineterminator="\n").writerows([self.columns, *self.rows])
        return made.getvalue()


def watchlists() -> tuple[Watchlist, ...]:
    """All of them."""
    lines = content_path("watchlists", "approved_models.txt").read_text(encoding="utf-8").splitlines()
    models = sorted(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    return (
        Watchlist(
            "AitrailApprovedModels",
            "AI access: approved models",
            "Beginnings of the names of models that are approved, lower-case, with who approved them",
            ("Model", "Owner", "Remark"),
            tuple((one, "the rules' list", "") for one in models),
        ),
        Watchlist(
            "AitrailDepartments",
            "AI access: departments",
            "Who answers for a department's use of AI, and whether an information barrier protects it",
            ("Department", "Owner", "OwnerEmail", "Restricted"),
            (("example", "Example Owner", "owner@example.com", "no"),),
        ),
        Watchlist(
            "AitrailOwners",
            "AI access: owners of applications",
            "Who answers for an application that calls models, by its name in the events",
            ("App", "Owner", "OwnerEmail"),
            (("example", "Example Owner", "owner@example.com"),),
        ),
    )


def as_resource(one: Watchlist) -> dict[str, Any]:
    """The ARM resource."""
    return resource(
        f"{WORKSPACE}/providers/Watchlists",
        f"[concat(parameters('workspace'), '/Microsoft.SecurityInsights/{one.alias}')]",
        properties={
            "displayName": one.title,
            "description": one.about,
            "provider": "aitrail",
            "source": f"{one.alias}.csv",
            "sourceType": "Local file",
            "watchlistAlias": one.alias,
            "itemsSearchKey": one.columns[0],
            "contentType": "text/csv",
            "numberOfLinesToSkip": 0,
            "rawContent": one.text,
            "isDeleted": False,
            "labels": ["aitrail"],
            "defaultDuration": "P1000Y",
        },
    )


def as_template(one: Watchlist) -> dict[str, Any]:
    """A template that makes this one alone."""
    parameters = {"workspace": {"type": "string", "metadata": {"description": "Workspace with Microsoft Sentinel"}}}
    return template([as_resource(one)], parameters, metadata={"description": f"{TITLE}: {one.about}"})
