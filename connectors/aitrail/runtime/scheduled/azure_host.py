"""The Functions host around us: its ``host.json``, how long it lets a function run, and what it puts into events.

Facts: Microsoft Learn, "host.json reference for Azure Functions" (functionTimeout, extensions.eventHubs, sampling),
"Azure Functions hosting options" (time-outs: 5 minutes by default and 10 at most on Consumption, 30 by default on Flex
Consumption and Premium), "Azure Event Hubs trigger" (metadata).
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

# Allowed on every plan; the host ends the worker process at it, without a word to the function.
LIMIT_SECONDS = 600.0
# What Consumption gives when nothing is said.
_UNSAID_SECONDS = 300.0
_ENDLESS_SECONDS = 1_800.0
_OVERRIDE = "AzureFunctionsJobHost__functionTimeout"
_TIME = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2})(?:\.\d+)?")

FUNCTION_APP = '''"""The functions of this app: set AITRAIL_CONFIG, or put aitrail.toml beside this file."""

from aitrail.runtime.azure_function import make_app

app = make_app()
'''


def host_json() -> dict[str, Any]:
    """What ``host.json`` has to say.

    The extension bundle is the one with the Event Hubs extension 6. Sampling leaves our lines alone: alerts count them.
    """
    return {
        "version": "2.0",
        "extensionBundle": {"id": "Microsoft.Azure.Functions.ExtensionBundle", "version": "[4.*, 5.0.0)"},
        "functionTimeout": "00:10:00",
        "extensions": {
            "eventHubs": {
                # An execution is billed for a second at least: few large batches cost less than many small ones.
                "maxEventBatchSize": 250,
                "minEventBatchSize": 25,
                "maxWaitTime": "00:00:20",
                # The host holds as many in memory, of up to 1 MB each.
                "prefetchCount": 300,
                "batchCheckpointFrequency": 1,
                "initialOffsetOptions": {"type": "fromStart"},
            }
        },
        "logging": {
            "applicationInsights": {
                "samplingSettings": {"isEnabled": True, "excludedTypes": "Trace;Exception;Request"},
            },
            "logLevel": {"default": "Warning", "Function": "Information", "Host.Results": "Information"},
        },
        "concurrency": {"dynamicConcurrencyEnabled": False},
    }


def host_json_text() -> str:
    """The file's text."""
    return json.dumps(host_json(), indent=2) + "\n"


def seconds_of(text: str) -> float | None:
    """Read a time span of the host, ``hh:mm:ss`` with days before it or not; ``-1`` is no limit; None: it is none."""
    if text.strip() == "-1":
        return _ENDLESS_SECONDS
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def time_limit(environment: Mapping[str, str] = os.environ) -> float:
    """How many seconds the host lets a function run: its setting, else ``host.json``, else the shortest default."""
    said = seconds_of(environment.get(_OVERRIDE, ""))
    if said is None:
        path = Path(environment.get("AzureWebJobsScriptRoot", ".")) / "host.json"
        try:
            said = seconds_of(str(json.loads(path.read_text(encoding="utf-8")).get("functionTimeout", "")))
        except (OSError, ValueError, AttributeError):
            said = None
    return said or _UNSAID_SECONDS


def usable(limit: float) -> float:
    """What of it may be used: the rest is for keeping what is in hand, and for the answer."""
    return max(limit - max(30.0, limit * 0.1), limit * 0.5)


class _Partition(msgspec.Struct, rename="pascal"):
    fully_qualified_namespace: str = ""
    event_hub_name: str = ""
    consumer_group: str = ""
    partition_id: str = ""


def origin_of(metadata: Any, hub: str) -> str:
    """Where a batch of messages comes from, as the Event Hubs source names it; what the host does not tell is left out.

    Args:
        metadata: the trigger's, as ``func.EventHubEvent.metadata`` gives it.
        hub: the event hub, as it is configured.
    """
    told = metadata.get("PartitionContext") if isinstance(metadata, Mapping) else None
    try:
        place = (
            msgspec.json.decode(told, type=_Partition) if isinstance(told, str) else msgspec.convert(told, _Partition)
        )
    except msgspec.MsgspecError:
        place = _Partition()
    name = place.event_hub_name or hub
    return f"eventhub://{place.fully_qualified_namespace}/{name}/{place.consumer_group}/{place.partition_id}"
