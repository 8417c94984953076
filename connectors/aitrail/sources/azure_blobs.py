"""The blob source: diagnostic logs that Azure writes into a storage account, and any other JSON blobs.

Promise: every record of every blob that the settings name is handed out at least once, whatever happens in between: a
blob may grow while it is read and for hours after its hour, its last line may be torn, its blocks may be written anew,
it may be deleted and made again. What cannot be known is read again from the start of its blob; event_id recognises it.
A blob that is deleted before it was read is a dead letter (``object_gone``) that names it and the place.

Listing is by hour (see ``_azure_blob_listing``); what was seen completely is the cursor ``sweep``. Facts: Microsoft
Learn "Azure resource logs" (layout, late growth), "Understanding block blobs, append blobs, and page blobs".
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient

from aitrail.clock import Clock
from aitrail.errors import AitrailError, ConfigError
from aitrail.ports import Budget, Cursors, RawBatch, RawRecord, SecretResolver, Workload
from aitrail.sources._azure_blob_listing import Blob, Listing, Plan, Sweep, decode_sweep
from aitrail.sources._azure_blob_reading import BlobCursor, BlobReading, Ranged, Reader, decode, unchanged
from aitrail.sources._azure_blobs_settings import AzureBlobsSettings
from aitrail.sources._azure_calls import Calls, code_of
from aitrail.sources._azure_identity import default_credential
from aitrail.sources._azure_start import start_epoch
from aitrail.sources._caps import Caps
from aitrail.sources._framing import Framer
from aitrail.sources._inflate import detect, open_text
from aitrail.sources._meter import Meter
from aitrail.sources._values import is_value

SWEEP = "sweep"
_MOST_NOTES = 1_000
_PERMISSION = (
    "grant the identity the role Storage Blob Data Reader (storage account > Access control (IAM) > Add role "
    "assignment), and let the account's network rules (Networking) accept this machine; a SAS needs read and list"
)


class AzureBlobsSource:
    """Reads blobs; a ``ports.Source``.

    Attributes:
        notes: what the last fetch left out or waits for, one sentence each; names and places, never content.
    """

    def __init__(
        self,
        settings: AzureBlobsSettings,
        *,
        name: str,
        clock: Clock,
        key: bytes,
        secrets: SecretResolver,
        options: Mapping[str, Any] | None = None,
        stretch: tuple[float, float] | None = None,
    ) -> None:
        """Describe the source; nothing is connected yet.

        Args:
            settings: which blobs.
            name: the source's name.
            clock: time.
            key: secret of the fingerprints in cursors.
            secrets: resolves ``connection_string`` and ``sas``, each time a connection is made.
            options: further arguments for ``BlobServiceClient`` (another transport or credential).
            stretch: read only this stretch of the past (epoch seconds), and no sweep (see ``ranged``).
        """
        self.name = name
        self.notes: list[str] = []
        self._settings, self._clock, self._key, self._secrets = settings, clock, key, secrets
        self._options = dict(options or {})
        self._stretch = stretch
        self._caps = Caps(text_bytes=settings.max_blob_mb << 20)
        self._service: BlobServiceClient | None = None
        self._calls = Calls(clock, name, _PERMISSION, self.close)
        self._listing = Listing(
            self._connected,
            self._calls.run,
            containers=settings.containers,
            prefix=settings.prefix,
            match=settings.match,
            by_hour=settings.layout == "diagnostics",
            near_hours=settings.near_hours,
            late_days=settings.late_days,
            since=stretch[0] if stretch else start_epoch(settings.start, clock.now()),
            note=self._note,
        )

    # -- the port

    def survey(self, cursors: Cursors) -> Workload:
        """Count the blobs with something new and their bytes; opens none."""
        objects, size = 0, 0
        for blob, cursor in self._candidates(cursors, self._plan(cursors)):
            objects += 1
            size += blob.size - (min(cursor.mark, blob.size) if cursor is not None else 0)
        return Workload(objects, size)

    def fetch(self, cursors: Cursors, budget: Budget) -> Iterator[RawBatch]:
        """Yield what is new, hour by hour; the sweep comes last, when everything that was listed is handed out.

        Raises:
            AuthError: the identity is refused or lacks a role.
            TransientError: the service does not answer or asks to wait.
        """
        self.notes = []
        meter = Meter(budget, self._clock)
        plan = self._plan(cursors)
        if cursors.get(SWEEP) is None and self._stretch is None:
            # Where "latest" was must be durable: a start later on would leave out what came meanwhile.
            yield RawBatch(self._url(), (), SWEEP, msgspec.json.encode(Sweep({}, plan.done.since)), barrier=True)
        for blob, cursor in self._candidates(cursors, plan):
            if meter.spent:
                return
            yield from self._blob(blob, cursor, meter)
        if not meter.spent and self._stretch is None:
            yield RawBatch(self._url(), (), SWEEP, msgspec.json.encode(plan.done), settled=True, barrier=True)

    def check(self) -> list[str]:
        """Say which right is missing: lists the containers, lists blobs in each and reads one byte."""
        try:
            names = self._listing.containers()
            if not names:
                return [f"{self.name}: no container matches {', '.join(self._settings.containers)}: name others"]
            return [problem for name in names if (problem := self._check(name))]
        except AitrailError as error:
            return [f"{error}: {error.hint}"]
        finally:
            self.close()

    def reread(self, origin: str, position: int, end: int, index: int) -> bytes | None:
        """Fetch one record again by its place; None when it is gone or there is nothing like a record."""
        base = f"{self._url()}/"
        container, _, quoted = origin.removeprefix(base).partition("/")
        if not origin.startswith(base) or not quoted:
            return None
        try:
            client = self._connected().get_blob_client(container, _unquoted(quoted))
            size = self._calls.run("reading a blob", lambda: client.get_blob_properties().size)
            head = client.download_blob(0, min(8, size)).readall() if size else b""
            if detect(head) != "plain" or end <= position:
                return self._by_number(client, size, head, index)
            length = min(end - position, self._caps.record_bytes)
            data: bytes = self._calls.run("reading a blob", lambda: client.download_blob(position, length).readall())
        except (AzureError, AitrailError):
            return None
        return data if is_value(data) else None

    def ranged(self, start: float, end: float) -> "AzureBlobsSource":
        """A source that reads the blobs of the hours in [start, end), and of the days after it for late rows."""
        settings, secrets = self._settings, self._secrets
        return AzureBlobsSource(
            settings,
            name=self.name,
            clock=self._clock,
            key=self._key,
            secrets=secrets,
            options=self._options,
            stretch=(start, end),
        )

    def close(self) -> None:
        """Give back connections; the next call makes new ones, with credentials asked for anew."""
        service, self._service = self._service, None
        if service is not None:
            service.close()

    # -- connections

    def _connected(self) -> BlobServiceClient:
        if self._service is None:
            options: dict[str, Any] = {"retry_total": 0, "connection_timeout": 10, "read_timeout": 60, **self._options}
            settings = self._settings
            if settings.connection_string:
                text = self._secrets.resolve(settings.connection_string)
                try:
                    self._service = BlobServiceClient.from_connection_string(text, **options)
                except ValueError:  # its text may hold a part of the secret
                    where = f"sources.{self.name}.connection_string"
                    hint = "copy it from the storage account's page Access keys"
                    raise ConfigError(
                        "this is no connection string of a storage account", where=where, hint=hint
                    ) from None
            else:
                if settings.sas:
                    options["credential"] = self._secrets.resolve(settings.sas).lstrip("?")
                elif "credential" not in options:
                    options["credential"] = default_credential(settings.managed_identity)
                self._service = BlobServiceClient(settings.account_url.rstrip("/"), **options)
        return self._service

    def _url(self) -> str:
        """The endpoint without a SAS token."""
        return self._connected().url.partition("?")[0].rstrip("/")

    # -- finding and reading

    def _plan(self, cursors: Cursors) -> Plan:
        if self._stretch is not None:
            return self._listing.between(*self._stretch)
        return self._listing.plan(decode_sweep(cursors.get(SWEEP)), self._clock.now())

    def _candidates(self, cursors: Cursors, plan: Plan) -> Iterator[tuple[Blob, BlobCursor | None]]:
        now = self._clock.now()
        for blob in self._listing.blobs(plan):
            cursor = decode(cursors.get(_key_of(blob)))
            if not unchanged(cursor, blob, now):
                yield blob, cursor

    def _blob(self, blob: Blob, cursor: BlobCursor | None, meter: Meter) -> Iterator[RawBatch]:
        origin = f"{self._url()}/{blob.container}/{quote(blob.name, safe='/=.-_~')}"
        reader = Reader(self._calls.run, lambda: self._connected().get_blob_client(blob.container, blob.name))
        try:
            reading = BlobReading(
                blob,
                reader,
                cursor,
                key=self._key,
                origin=origin,
                cursor_key=_key_of(blob),
                caps=self._caps,
                clock=self._clock,
                note=self._note,
            )
            yield from reading.batches(meter)
        except ResourceNotFoundError:
            self._note(f"{origin}: deleted before it was read to its end")
            yield _gone(blob, cursor, origin)
        except HttpResponseError as error:
            code = code_of(error) or error.status_code
            why = "in the archive tier: rehydrate it" if code == "BlobArchived" else f"changed just now ({code})"
            self._note(f"{origin}: {why}; read next time")

    def _check(self, container: str) -> str:
        """What is wrong with one container; empty when nothing is."""
        client = self._connected().get_container_client(container)
        try:
            first = self._calls.run(
                f"listing {container}", lambda: next(iter(client.list_blobs(results_per_page=1)), None)
            )
            if first is not None and first.size:
                self._calls.run(
                    f"reading a blob of {container}", lambda: client.download_blob(first.name, 0, 1).readall()
                )
        except AitrailError as error:
            return f"{error}: {error.hint}"
        except ResourceNotFoundError:
            return f"{self.name}: there is no container {container}: create it, or correct the setting containers"
        except HttpResponseError:
            return ""  # deleted or archived just now: the rights are there
        return ""

    def _by_number(self, client: Any, size: int, head: bytes, index: int) -> bytes | None:
        """The record of a number, of a packed blob."""

        def get(at: int, length: int) -> bytes:
            data: bytes = self._calls.run("reading a blob", lambda: client.download_blob(at, length).readall())
            return data

        text, framer = open_text(Ranged(get, 0, size), detect(head), self._caps), Framer(self._caps)
        try:
            while data := text.read():
                for run in framer.feed(data):
                    if index <= run.records[-1].index:
                        return run.records[index - run.records[0].index].data or None
        except AitrailError:
            return None
        for run in framer.finish()[0]:
            if index <= run.records[-1].index:
                return run.records[index - run.records[0].index].data or None
        return None

    def _note(self, what: str) -> None:
        if len(self.notes) < _MOST_NOTES:
            self.notes.append("".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in what))
        elif len(self.notes) == _MOST_NOTES:
            self.notes.append("there is more of this kind that is not listed")


def _key_of(blob: Blob) -> str:
    return f"{blob.container}/{blob.name}"


def _gone(blob: Blob, cursor: BlobCursor | None, origin: str) -> RawBatch:
    """A dead letter for what nobody can read any more, once per version of the blob."""
    kept = cursor or BlobCursor(blob.etag, blob.size, blob.created)
    record = RawRecord(b"", kept.mark, kept.index, max(kept.mark, blob.size), "object_gone")
    done = msgspec.structs.replace(kept, etag=blob.etag, done=True, v=1)
    return RawBatch(origin, (record,), _key_of(blob), msgspec.json.encode(done), newest=blob.modified, settled=True)


def _unquoted(name: str) -> str:
    from urllib.parse import unquote  # noqa: PLC0415 - only when a record is read again

    return unquote(name)
