"""What ``[sources.NAME]`` of type ``event_hubs`` may say."""

import re
from typing import Annotated

from msgspec import Meta, Struct

from aitrail.sources._azure_start import START_HELP, check_start

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{2,251}")


class EventHubsSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which event hub is read, as which consumer group, and where several collectors agree about it."""

    event_hub: Annotated[str, Meta(description="Name of the event hub.", min_length=1)]
    start: Annotated[str, Meta(description=START_HELP + " There is no default: say it.")]
    namespace: Annotated[str, Meta(description="NAMESPACE.servicebus.windows.net; read with azure-identity.")] = ""
    connection_string: Annotated[
        str, Meta(description="Instead of namespace: reference to a connection string with Listen, e.g. env:HUB.")
    ] = ""
    consumer_group: Annotated[
        str, Meta(description="Consumer group; one that nothing else reads with.", min_length=1)
    ] = "$Default"
    managed_identity: Annotated[
        str, Meta(description="Client id of a user-assigned managed identity; empty: the default chain.")
    ] = ""
    checkpoint_url: Annotated[
        str, Meta(description="Blob endpoint of the checkpoint store, https://ACCOUNT.blob.core.windows.net.")
    ] = ""
    checkpoint_connection_string: Annotated[
        str, Meta(description="Instead of checkpoint_url: reference to the account's connection string.")
    ] = ""
    checkpoint_container: Annotated[
        str,
        Meta(description="Container of the checkpoint store; it must exist. Without one this is the only collector."),
    ] = ""
    balance_seconds: Annotated[float, Meta(description="How often collectors share out the partitions anew.", gt=0)] = (
        10.0
    )
    idle_seconds: Annotated[
        float, Meta(description="A look ends when this long nothing came from any partition.", gt=0)
    ] = 2.0
    join_seconds: Annotated[float, Meta(description="The longest that a look waits to be given partitions.", gt=0)] = (
        60.0
    )
    prefetch: Annotated[int, Meta(description="Messages that are read ahead of each partition.", ge=1, le=5_000)] = 300
    websockets: Annotated[bool, Meta(description="AMQP over WebSockets, port 443 instead of 5671.")] = False

    def __post_init__(self) -> None:
        check_start(self.start)
        if bool(self.namespace) == bool(self.connection_string):
            raise ValueError("give either namespace or connection_string")
        if self.namespace and not _NAMESPACE.fullmatch(self.namespace):
            raise ValueError("namespace must be like NAMESPACE.servicebus.windows.net")
        stored = bool(self.checkpoint_url) + bool(self.checkpoint_connection_string)
        if stored != bool(self.checkpoint_container):
            raise ValueError(
                "a checkpoint store is checkpoint_container and one of checkpoint_url, checkpoint_connection_string"
            )
