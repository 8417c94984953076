"""aitrail as an Azure function app (Python v2 programming model): what ``function_app.py`` of a package imports.

``make_app`` registers one timer per polled source of the configuration, one Event Hub trigger per source of type
``event_hubs``, and a timer that sends again what waits. It reads settings and calls nobody: the host imports the app
only to find its functions. Three habits of the platform decide what is written here:

- the worker looks at annotations as ``typing`` makes them: ``list[func.EventHubEvent]`` registers no function at all;
- an exception from an Event Hub trigger advances the pointer like success, unless a retry policy says otherwise;
- a timer whose run takes too long is called again for the one that it missed (``past_due``).
"""

import os
import re
from collections.abc import Mapping
from typing import Any, List  # noqa: UP035 - see above

import azure.functions as func

from aitrail.config import Config
from aitrail.errors import ConfigError
from aitrail.runtime.scheduled.azure_host import origin_of
from aitrail.runtime.scheduled.azure_line import Line, RunError
from aitrail.runtime.scheduled.azure_runs import HUB, Message, Runs, configuration

# Event Hubs connections are named by the beginning of their settings: AITRAIL_HUB__fullyQualifiedNamespace.
CONNECTION = "AITRAIL_HUB"
SCHEDULE = "AITRAIL_SCHEDULE"
WAITING_SCHEDULE = "AITRAIL_WAITING_SCHEDULE"
_SCHEDULES = {SCHEDULE: "0 */5 * * * *", WAITING_SCHEDULE: "30 */2 * * * *"}
_NO_NAME = re.compile(r"[^A-Za-z0-9_]")
# Sources that need the machine they run on.
_LOCAL = frozenset({"file"})


def make_app(environment: Mapping[str, str] = os.environ, made: list[Runs] | None = None) -> func.FunctionApp:
    """Make the app with the functions that its configuration asks for.

    Args:
        environment: the app's settings.
        made: gets what does the work of each function, for who wants to close it; a worker process never does.

    A configuration that is wrong is no reason to have no functions, which nobody would be told about: then there is
    one timer, and each of its runs fails with the sentence that says what is wrong.
    """
    app = func.FunctionApp()
    every = made if made is not None else []
    try:
        config = configuration(environment)
        names = _names(config)
    except ConfigError as error:
        _wrong(app, error, environment)
        return app
    for source, function in names.items():
        if config.sources[source].type == HUB:
            runs = _hub(app, function, source, config, environment)
        else:
            runs = _timer(app, function, source, environment)
        every.append(runs)
    every.append(_waiting(app, environment))
    return app


def _names(config: Config) -> dict[str, str]:
    """Names of functions by source."""
    if not config.sources:
        raise ConfigError("there is no source", where="sources", hint="add a [sources.NAME]")
    names: dict[str, str] = {}
    for source, settings in config.sources.items():
        where = config.where(f"sources.{source}")
        if settings.type in _LOCAL:
            hint = "read blobs (azure_blobs), or run a collector where the files are"
            raise ConfigError("a function app has no files of its own to read", where=where, hint=hint)
        if settings.type == HUB:
            _hub_name(config, source)
        name = f"{'hub' if settings.type == HUB else 'poll'}_{_NO_NAME.sub('_', source)}"
        if name in names.values():
            raise ConfigError("two sources would be the same function", where=where, hint="give one another name")
        names[source] = name
    return names


def _hub_name(config: Config, source: str) -> str:
    name = config.sources[source].options.get("event_hub")
    if not isinstance(name, str) or not name:
        raise ConfigError("the name of the event hub is missing", where=config.where(f"sources.{source}.event_hub"))
    return name


def _schedule(setting: str, environment: Mapping[str, str]) -> str:
    """A reference to the app setting, which the host resolves; the usual schedule where there is none."""
    return f"%{setting}%" if environment.get(setting) else _SCHEDULES[setting]


def _timer(app: func.FunctionApp, function: str, source: str, environment: Mapping[str, str]) -> Runs:
    runs = Runs(function, source, environment)

    def polled(timer: func.TimerRequest) -> None:
        runs.poll(past_due=timer.past_due)

    _registered(app, polled, function, _schedule(SCHEDULE, environment))
    return runs


def _waiting(app: func.FunctionApp, environment: Mapping[str, str]) -> Runs:
    runs = Runs("waiting", "", environment)

    def sent_again(timer: func.TimerRequest) -> None:
        runs.send_waiting(past_due=timer.past_due)

    _registered(app, sent_again, "waiting", _schedule(WAITING_SCHEDULE, environment))
    return runs


def _wrong(app: func.FunctionApp, error: ConfigError, environment: Mapping[str, str]) -> None:
    def misconfigured(timer: func.TimerRequest) -> None:
        line = Line(function="misconfigured", outcome="failed", past_due=timer.past_due)
        line.blame("configuration", error)
        line.write()
        raise RunError(error.sentence)

    _registered(app, misconfigured, "misconfigured", _schedule(SCHEDULE, environment))


def _registered(app: func.FunctionApp, function: Any, name: str, schedule: str) -> None:
    """Register a timer. It keeps its own record of what it missed (``use_monitor``), and waits for its time."""
    timed = app.timer_trigger(schedule=schedule, arg_name="timer", run_on_startup=False, use_monitor=True)
    app.function_name(name)(timed(function))


def _hub(app: func.FunctionApp, function: str, source: str, config: Config, environment: Mapping[str, str]) -> Runs:
    runs = Runs(function, source, environment)
    hub = _hub_name(config, source)
    group = str(config.sources[source].options.get("consumer_group", "$Default"))

    def taken(events: List[func.EventHubEvent]) -> None:  # noqa: UP006 - the worker knows no other form
        messages = [_message(event) for event in events]
        if messages:
            runs.push(messages, origin_of(events[0].metadata, hub))

    triggered = app.event_hub_message_trigger(
        arg_name="events",
        connection=CONNECTION,
        event_hub_name=hub,
        consumer_group=group,
        cardinality=func.Cardinality.MANY,
        # As bytes: what is no UTF-8 must arrive as it is.
        data_type=func.DataType.BINARY,
    )
    # When a batch can be neither delivered nor kept: the host gives it again and holds the pointer, without an end.
    held = app.retry(
        strategy="exponential_backoff", max_retry_count="-1", minimum_interval="00:00:05", maximum_interval="00:05:00"
    )
    app.function_name(function)(held(triggered(taken)))
    return runs


def _message(event: func.EventHubEvent) -> Message:
    enqueued = event.enqueued_time
    return Message(event.get_body(), event.sequence_number or 0, enqueued.timestamp() if enqueued is not None else 0.0)
