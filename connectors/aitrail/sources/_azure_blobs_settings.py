"""What ``[sources.NAME]`` of type ``azure_blobs`` may say."""

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct

from aitrail.sources._azure_start import START_HELP, check_start

_URL = re.compile(r"https?://[A-Za-z0-9.:-]+(?:/[A-Za-z0-9-]+)?/?")


class AzureBlobsSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the blobs are and which of them are read."""

    account_url: Annotated[
        str, Meta(description="Blob endpoint, https://ACCOUNT.blob.core.windows.net; read with azure-identity.")
    ] = ""
    connection_string: Annotated[
        str, Meta(description="Instead of account_url: reference to a connection string, e.g. env:AZURE_STORAGE.")
    ] = ""
    sas: Annotated[str, Meta(description="Reference to a SAS token for account_url; empty: azure-identity.")] = ""
    managed_identity: Annotated[
        str, Meta(description="Client id of a user-assigned managed identity; empty: the default chain.")
    ] = ""
    containers: Annotated[
        tuple[str, ...], Meta(description="Containers; `*` stands for anything at the end of a name.")
    ] = ("insights-logs-*",)
    layout: Annotated[
        Literal["diagnostics", "plain"],
        Meta(
            description="diagnostics: folders y=/m=/d=/h= as diagnostic settings write them, listed by hour; "
            "plain: any JSON or NDJSON blobs, packed or not, listed whole."
        ),
    ] = "diagnostics"
    prefix: Annotated[str, Meta(description="Only blobs whose names begin with this.")] = ""
    match: Annotated[tuple[str, ...], Meta(description="Only blobs whose names match one of these patterns.")] = ("*",)
    start: Annotated[str, Meta(description=START_HELP)] = "earliest"
    near_hours: Annotated[
        int, Meta(description="Hours before the last look that every look lists again: they still grow.", ge=1, le=48)
    ] = 2
    late_days: Annotated[
        int, Meta(description="Days back that a look every six hours lists again, for very late rows.", ge=1, le=90)
    ] = 7
    max_blob_mb: Annotated[int, Meta(description="Cap on one packed blob's text, in MiB.", gt=0)] = 65536

    def __post_init__(self) -> None:
        check_start(self.start)
        if bool(self.account_url) == bool(self.connection_string):
            raise ValueError("give either account_url or connection_string")
        if self.account_url and not _URL.fullmatch(self.account_url):
            raise ValueError("account_url must be like https://ACCOUNT.blob.core.windows.net")
        if self.account_url.startswith("http:") and not self.sas:
            raise ValueError("account_url must be https: an identity's token is not sent in the clear")
        if not self.containers or not all(self.containers):
            raise ValueError('containers is empty: name some, e.g. ["insights-logs-*"]')
        if any("*" in name[:-1] for name in self.containers):
            raise ValueError("in containers, `*` may only stand at the end of a name")
