"""What runs on AWS remember, in one DynamoDB table: cursors, who may poll, which objects were read; dead letters in S3.

The table's key is ``p`` (partition) and ``s`` (sort), both strings; ``t`` is its TTL attribute (epoch seconds).

- ``p = cursor#SOURCE``: one item per cursor (``s = c:KEY``). A value above 350 kB (an item holds 400) lies in further
  items (``s = p:GENERATION:NUMBER``), written before the item that names them. Every write is conditional on the
  lease's token: a poller that was overtaken writes nothing any more.
- ``p = lease``: one item per source: owner, token, end.
- ``p = object#SOURCE``: what was read of objects, for 26 hours: notifications come twice, and an object that is larger
  than one run goes on where the last run stopped.

Source of the limits: DynamoDB developer guide, "Quotas".
"""

import hashlib
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from isal import igzip
from msgspec import Struct

from aitrail.clock import Clock
from aitrail.errors import TransientError
from aitrail.ports import Lease
from aitrail.sources._aws_calls import Aws, Refused
from aitrail.sources._aws_seen import Part
from aitrail.spool.records import DeadLetter

_MOST_VALUE = 350_000
_LOST = frozenset({"ConditionalCheckFailedException"})
_PART_SECONDS = 90 * 86_400
_OBJECT_SECONDS = 26 * 3_600
_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Part).decode
_Item = dict[str, dict[str, Any]]


class Table(Struct, frozen=True):
    """The table and who calls it; see ``Aws.call`` for what is raised."""

    aws: Aws
    region: str
    name: str

    @property
    def resource(self) -> str:
        """What errors call it."""
        return f"DynamoDB table {self.name}"

    def get(self, partition: str, sort: str) -> _Item | None:
        """One item, as it is now."""
        key = {"p": {"S": partition}, "s": {"S": sort}}
        answer = self._call("get_item", Key=key, ConsistentRead=True)
        found: _Item | None = answer.get("Item")
        return found

    def partition(self, partition: str) -> Iterator[_Item]:
        """All items of a partition, as they are now."""
        more: dict[str, Any] = {}
        while True:
            answer = self._call(
                "query", KeyConditionExpression="p = :p", ExpressionAttributeValues={":p": {"S": partition}},
                ConsistentRead=True, **more,
            )  # fmt: skip
            yield from answer.get("Items", [])
            if "LastEvaluatedKey" not in answer:
                return
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def put(self, item: _Item, condition: str = "", values: _Item | None = None) -> bool:
        """Write one item; False when ``condition`` does not hold."""
        more: dict[str, Any] = {"ConditionExpression": condition} if condition else {}
        more |= {"ExpressionAttributeValues": values} if values else {}
        try:
            self._call("put_item", Item=item, **more)
        except Refused:
            return False
        return True

    def update(self, partition: str, sort: str, **parameters: Any) -> _Item | None:
        """Change one item and give it as it is then; None when the condition does not hold."""
        key = {"p": {"S": partition}, "s": {"S": sort}}
        try:
            answer = self._call("update_item", Key=key, ReturnValues="ALL_NEW", **parameters)
        except Refused:
            return None
        changed: _Item = answer["Attributes"]
        return changed

    def delete(self, partition: str, sort: str) -> None:
        """Remove one item."""
        self._call("delete_item", Key={"p": {"S": partition}, "s": {"S": sort}})

    def _call(self, operation: str, **parameters: Any) -> Any:
        return self.aws.call(
            "dynamodb", self.region, operation, self.resource, expect=_LOST, TableName=self.name, **parameters
        )


class TableCursors:
    """The cursors of one polled source (``direct.DurableCursors``); all are read at once, at the first question."""

    def __init__(self, table: Table, source: str, clock: Clock, lease: Lease) -> None:
        self._table = table
        self._partition = f"cursor#{source}"
        self._clock = clock
        self._lease = lease
        self._loaded = False
        self._values: dict[str, bytes] = {}
        self._parts: dict[str, list[str]] = {}

    def get(self, key: str) -> bytes | None:
        """Return the committed cursor of ``key``, or None."""
        self._load()
        return self._values.get(key)

    def items(self) -> Iterator[tuple[str, bytes]]:
        """All committed cursors of this source."""
        self._load()
        return iter(list(self._values.items()))

    def commit(self, changed: dict[str, bytes]) -> None:
        """Write what changed, one item after the other: each is right once its events are settled, and they are.

        Raises:
            TransientError: another poller has taken over; or DynamoDB cannot be asked.
        """
        for key, value in changed.items():
            if self._values.get(key) != value:
                self._write(key, value)
                self._values[key] = value

    def _write(self, key: str, value: bytes) -> None:
        token = {"N": str(self._lease.token)}
        item: _Item = {"p": {"S": self._partition}, "s": {"S": f"c:{key}"}, "w": token}
        parts: list[str] = []
        if len(value) <= _MOST_VALUE:
            item["v"] = {"B": value}
        else:
            generation = uuid.uuid4().hex
            expires = {"N": str(int(self._clock.now()) + _PART_SECONDS)}
            for number, at in enumerate(range(0, len(value), _MOST_VALUE)):
                parts.append(f"p:{generation}:{number}")
                part = {"B": value[at : at + _MOST_VALUE]}
                self._table.put({"p": {"S": self._partition}, "s": {"S": parts[-1]}, "v": part, "t": expires})
            item["n"] = {"L": [{"S": part} for part in parts]}
        if not self._table.put(item, "attribute_not_exists(w) OR w <= :w", {":w": token}):
            raise TransientError(f"another run has taken over {self._lease.name}; this one ends")
        for old in self._parts.pop(key, []):
            self._table.delete(self._partition, old)
        self._parts[key] = parts

    def _load(self) -> None:
        if self._loaded:
            return
        found = {item["s"]["S"]: item for item in self._table.partition(self._partition)}
        for name, item in found.items():
            if not name.startswith("c:"):
                continue
            parts = [part["S"] for part in item.get("n", {}).get("L", [])]
            pieces = [found[part]["v"]["B"] for part in parts if part in found] if parts else [item["v"]["B"]]
            if len(pieces) == len(parts) or not parts:
                self._values[name[2:]] = b"".join(bytes(piece) for piece in pieces)
            self._parts[name[2:]] = parts
        self._loaded = True


class TableLeases:
    """``ports.Leases`` in the table: the conditional write decides who has it, clocks only how long others wait."""

    def __init__(self, table: Table, clock: Clock, owner: str) -> None:
        self._table, self._clock = table, clock
        self.owner = owner

    def acquire(self, name: str, seconds: float) -> Lease | None:
        """Take the lease when it is free, expired or ours; None when another holds it."""
        now = self._clock.now()
        changed = self._table.update(
            "lease", name,
            UpdateExpression="SET o = :o, e = :e, w = if_not_exists(w, :zero) + :one",
            ConditionExpression="attribute_not_exists(o) OR o = :o OR e < :now",
            ExpressionAttributeValues={
                ":o": {"S": self.owner}, ":e": _number(now + seconds), ":now": _number(now), ":zero": {"N": "0"},
                ":one": {"N": "1"},
            },
        )  # fmt: skip
        return Lease(name, self.owner, int(changed["w"]["N"]), now + seconds) if changed is not None else None

    def renew(self, leases: Sequence[Lease], seconds: float) -> list[Lease]:
        """Extend leases and give those that are still ours."""
        end = self._clock.now() + seconds
        return [Lease(one.name, one.owner, one.token, end) for one in leases if self._end_at(one, end)]

    def release(self, leases: Sequence[Lease]) -> None:
        """Give leases back; those that are not ours any more are left alone."""
        for one in leases:
            self._end_at(one, 0.0)

    def _end_at(self, lease: Lease, end: float) -> bool:
        changed = self._table.update(
            "lease", lease.name,
            UpdateExpression="SET e = :e", ConditionExpression="o = :o AND w = :w",
            ExpressionAttributeValues={
                ":o": {"S": lease.owner}, ":e": _number(end), ":w": {"N": str(lease.token)}
            },
        )  # fmt: skip
        return changed is not None


class ObjectMemory:
    """What was read of objects (``_aws_seen.Memory``), and its cursors (``direct.DurableCursors``).

    A key is asked for when its object is opened. Two runs that read the same object at the same time both deliver it,
    under the same event ids; the memory is there for what comes after one another.
    """

    def __init__(self, table: Table, source: str, clock: Clock, key: bytes) -> None:
        self._table = table
        self._partition = f"object#{source}"
        self._clock = clock
        self._key = key[:64]
        self._known: dict[str, Part | None] = {}
        self._last = ""

    def ident(self, *parts: str) -> bytes:
        """The hash of an object's name."""
        text = "\x00".join(parts).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._key, digest_size=16).digest()

    def has(self, hour: int, ident: bytes) -> bool:
        """Whether it was read to its end."""
        del hour
        self._last = ident.hex()
        found = self._lookup(self._last)
        return found is not None and found.index < 0

    def part(self, hour: int, ident: bytes) -> Part:
        """Where to go on in it."""
        del hour
        return self._lookup(ident.hex()) or Part()

    def add(self, hour: int, *idents: bytes) -> bool:
        """It was read to its end."""
        del hour
        for ident in idents:
            self._last = ident.hex()
            self._known[self._last] = Part(ident, 0, 0, -1)
        return True

    def keep(self, hour: int, part: Part) -> bool:
        """It was read so far."""
        del hour
        self._last = part.ident.hex()
        self._known[self._last] = part
        return True

    def cursor(self, hour: int) -> tuple[str, bytes]:
        """What to commit for the object that was spoken of last."""
        del hour
        return self._last, _pack(self._known.get(self._last) or Part())

    def get(self, key: str) -> bytes | None:
        """Not asked for by name: see ``has`` and ``part``."""
        del key
        return None

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Nothing is listed."""
        return iter(())

    def commit(self, changed: dict[str, bytes]) -> None:
        """Remember it for 26 hours; what was read to its end stays so."""
        expires = {"N": str(int(self._clock.now()) + _OBJECT_SECONDS)}
        for key, value in changed.items():
            done = _unpack(value).index < 0
            item: _Item = {"p": {"S": self._partition}, "s": {"S": key}, "v": {"B": value}, "t": expires}
            self._table.put({**item, "d": {"BOOL": True}} if done else item, "" if done else "attribute_not_exists(d)")

    def _lookup(self, key: str) -> Part | None:
        if key not in self._known:
            item = self._table.get(self._partition, key)
            fresh = item is not None and int(item["t"]["N"]) > self._clock.now()  # TTL deletes days later
            self._known[key] = _unpack(bytes(item["v"]["B"])) if item is not None and fresh else None
        return self._known[key]


class BucketDeadLetters:
    """Dead letters as objects: ``dead/SOURCE/yyyy/mm/dd/DIGEST.jsonl.gz``, one JSON object a line.

    The bucket's notification tells a queue of each. The name tells the content: the same letters again are the same
    object. They hold no more content than the content mode allows.
    """

    def __init__(self, aws: Aws, region: str, bucket: str) -> None:
        self._aws, self._region, self._bucket = aws, region, bucket

    def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Write letters. Durable when it returns."""
        places: dict[str, list[DeadLetter]] = {}
        for letter in letters:
            day = datetime.fromtimestamp(letter.first_seen or time.time(), UTC)
            places.setdefault(f"dead/{letter.source}/{day:%Y/%m/%d}", []).append(letter)
        for place, some in places.items():
            name = hashlib.blake2b("".join(sorted(one.id for one in some)).encode(), digest_size=16).hexdigest()
            body = igzip.compress(b"".join(_encode(one) + b"\n" for one in some), 1, mtime=0)
            self._aws.call(
                "s3", self._region, "put_object", f"arn:aws:s3:::{self._bucket}/dead/*", Bucket=self._bucket,
                Key=f"{place}/{name}.jsonl.gz", Body=body, ContentType="application/gzip",
            )  # fmt: skip


def _number(value: float) -> dict[str, str]:
    return {"N": f"{value:.3f}"}
