"""The function app with the platform's own classes, its state in Azurite and Sentinel's endpoint behind it."""

import json
import logging
import typing

import msgspec
import pytest

pytest.importorskip("azure.functions", reason="needs the dev extra")
pytest.importorskip("azure.storage.blob", reason="needs the extra azure")
from azure_platform import BLOBS, CONFIG, HUB, lines_of, platform_of, records

from aitrail.runtime.scheduled import azure_runs
from aitrail.runtime.scheduled.azure_host import FUNCTION_APP, host_json, time_limit, usable
from aitrail.runtime.scheduled.azure_line import RunError
from aitrail.testing.azure_flow import audit, correlation, gateway, llm
from aitrail.testing.azure_function import Worker, event_batch, timer
from aitrail.testing.dce_peer import DCR
from aitrail.testing.peer import Behaviour


@pytest.fixture
def platform(monkeypatch):
    with platform_of(monkeypatch) as made:
        yield made


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, logger="aitrail.run")
    return lambda: lines_of(caplog)


# -- the app


def test_functions_and_their_bindings(platform):
    worker = platform.worker(HUB + BLOBS.format(container="insights-logs-x"))
    assert list(worker.bindings) == ["hub_hub", "poll_blobs", "waiting"]
    (hub,) = worker.bindings["hub_hub"]["bindings"]
    assert {name: hub[name] for name in ("type", "direction", "name", "connection", "eventHubName")} == {
        "type": "eventHubTrigger",
        "direction": "IN",
        "name": "events",
        "connection": "AITRAIL_HUB",
        "eventHubName": "ai-logs",
    }
    assert (hub["cardinality"], hub["dataType"], hub["consumerGroup"]) == ("MANY", "BINARY", "aitrail")
    (poll,) = worker.bindings["poll_blobs"]["bindings"]
    assert (poll["type"], poll["name"], poll["schedule"]) == ("timerTrigger", "timer", "%AITRAIL_SCHEDULE%")
    assert (poll["runOnStartup"], poll["useMonitor"]) == (False, True)
    (waiting,) = worker.bindings["waiting"]["bindings"]
    assert waiting["schedule"] == "30 */2 * * * *"
    settings = {one.get_setting_name(): one.get_dict_repr() for one in worker.functions["hub_hub"]._settings}
    assert settings["retry_policy"]["max_retry_count"] == "-1", "without it the pointer advances over what was not kept"


def test_annotations_are_of_the_kind_that_the_worker_takes(platform):
    """``list[...]`` makes the worker raise FunctionLoadError and register no function at all."""
    import azure.functions as func
    from azure.functions.eventhub import EventHubTriggerConverter
    from azure.functions.timer import TimerRequestConverter

    worker = platform.worker(HUB + BLOBS.format(container="x"))
    hints = typing.get_type_hints(worker.functions["hub_hub"].get_user_function())
    kind = hints["events"]
    assert type(kind) is type(typing.List[int])  # noqa: UP006 - exactly this
    assert kind == typing.List[func.EventHubEvent]  # noqa: UP006
    assert EventHubTriggerConverter.check_input_type_annotation(kind)
    assert hints["return"] is type(None)
    timed = typing.get_type_hints(worker.functions["poll_blobs"].get_user_function())["timer"]
    assert TimerRequestConverter.check_input_type_annotation(timed)


def test_importing_and_indexing_calls_nobody(platform, monkeypatch):
    import socket

    def refused(*_):
        raise AssertionError("a connection while the host only looks for functions")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    worker = platform.worker(HUB + BLOBS.format(container="x"))
    assert len(worker.functions) == 3
    assert platform.identity.asked == []


def test_the_packages_module_makes_the_app(platform, monkeypatch, tmp_path):
    import azure.functions as func

    config = CONFIG.format(url="https://x.example.com", dcr=DCR, ca_file="") + HUB
    (tmp_path / "aitrail.toml").write_text(config)
    monkeypatch.setenv("AzureWebJobsScriptRoot", str(tmp_path))
    monkeypatch.delenv("AITRAIL_CONFIG", raising=False)
    module = {}
    exec(compile(FUNCTION_APP, "function_app.py", "exec"), module)  # as the worker imports it
    assert isinstance(module["app"], func.FunctionApp)
    assert [one.get_function_name() for one in module["app"].get_functions()] == ["hub_hub", "waiting"]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("[sources.x", "TOML"),
        ("", "no source"),
        ('[sources.a]\ntype = "file"\npaths = ["x"]', "no files of its own"),
        ('[sources.a]\ntype = "event_hubs"\nstart = "latest"', "name of the event hub"),
        ('[sources."a.b"]\ntype = "azure_blobs"\n[sources.a_b]\ntype = "azure_blobs"', "same function"),
    ],
)
def test_a_wrong_configuration_fails_loudly_every_time(platform, told, config, says):
    worker = Worker(platform.environment | {"AITRAIL_CONFIG": config or "[health]\ninterval = 1.0"})
    assert list(worker.functions) == ["misconfigured"]
    with pytest.raises(RunError, match=says):
        worker.call("misconfigured", timer())
    (line,) = told()
    assert (line.outcome, line.cause) == ("failed", "configuration ConfigError")


def test_host_json_says_what_the_functions_rely_on(tmp_path):
    found = host_json()
    hubs = found["extensions"]["eventHubs"]
    assert hubs["batchCheckpointFrequency"] == 1
    assert hubs["initialOffsetOptions"] == {"type": "fromStart"}, "a hub that was never read begins at its beginning"
    assert "Trace" in found["logging"]["applicationInsights"]["samplingSettings"]["excludedTypes"]
    (tmp_path / "host.json").write_text(json.dumps(found))
    environment = {"AzureWebJobsScriptRoot": str(tmp_path)}
    assert time_limit(environment) == 600.0
    assert time_limit(environment | {"AzureFunctionsJobHost__functionTimeout": "00:05:00"}) == 300.0
    assert time_limit(environment | {"AzureFunctionsJobHost__functionTimeout": "1.00:00:00"}) == 86_400.0
    assert time_limit(environment | {"AzureFunctionsJobHost__functionTimeout": "-1"}) == 1_800.0
    (tmp_path / "host.json").write_text("{}")
    assert time_limit(environment) == 300.0, "what Consumption gives when nothing is said"
    (tmp_path / "host.json").write_text("rubbish")
    assert time_limit(environment) == 300.0
    assert usable(600.0) == 540.0
    assert usable(300.0) == 270.0


# -- messages


def test_a_batch_with_poison_records(platform, told):
    """Every kind of message beside every kind of rubbish: the verdict is per record, and nothing stops the rest."""
    bodies = [
        records(audit(0), audit(1)),
        audit(2),
        b"[" + audit(3) + b"," + audit(4) + b"]",
        b"",
        b"not json at all",
        b'{"records":[' + audit(5) + b',{"time":"x"},17,null]}',
        b"\xff\xfe\x00",
        b'{"records":[' + audit(6) + b',{"ca',
        b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
        records(audit(7)),
    ]
    platform.worker().call("hub_hub", event_batch(bodies, 100))
    assert sorted(platform.arrived()) == sorted(correlation(number) for number in range(8))
    dead = platform.dead()
    assert {one.position for one in dead} == {104, 105, 106, 107, 108}
    assert {one.origin for one in dead} == {"eventhub://acme.servicebus.windows.net/ai-logs/aitrail/0"}
    assert all(one.raw is None for one in dead), "content of a record that was not understood is nobody's business"
    (line,) = told()
    assert (line.outcome, line.dead, line.new) == ("ok", len(dead), 8)


def test_tokens_come_from_the_apps_identity_alone(platform):
    platform.worker().call("hub_hub", event_batch([records(audit(0))]))
    assert {one["resource"] for one in platform.identity.asked} == {"https://monitor.azure.com"}
    platform.worker().call("hub_hub", event_batch([b"rubbish"]))
    assert {one["resource"] for one in platform.identity.asked} == {
        "https://monitor.azure.com",
        "https://storage.azure.com",
    }
    assert {one["client_id"] for one in platform.identity.asked} == {"client-of-the-app"}


def test_what_a_destination_cannot_take_waits_before_the_pointer_moves(platform, told):
    worker = platform.worker(AITRAIL_PUSH_SECONDS="3")
    worker.call("hub_hub", event_batch([b"[]"]))  # everything is made: the three seconds are for sending
    platform.peer.script(Behaviour("down"))
    worker.call("hub_hub", event_batch([records(*(audit(number) for number in range(5)))]))
    assert platform.arrived() == []
    assert len(platform.waiting()) == 5
    line = told()[-1]
    assert (line.outcome, line.waiting) == ("ok", 5)
    assert line.cause.startswith("destination:sentinel TransientError")
    platform.peer.heal()
    worker.call("waiting", timer())
    assert sorted(platform.arrived()) == sorted(correlation(number) for number in range(5))
    assert platform.waiting() == []
    assert (told()[-1].outcome, told()[-1].new) == ("ok", 5)


def test_a_refused_role_names_its_cause_and_loses_nothing(platform, told):
    platform.peer.dialect.role = False
    worker = platform.worker()
    worker.call("hub_hub", event_batch([records(audit(0))]))
    assert told()[-1].cause == "destination:sentinel AuthError"
    assert "Monitoring Metrics Publisher" in told()[-1].detail
    assert len(platform.waiting()) == 1
    worker.call("waiting", timer())
    assert told()[-1].cause == "destination:sentinel AuthError"
    assert len(platform.waiting()) == 1, "it is refused still"
    platform.peer.dialect.role = True
    worker.call("waiting", timer())
    assert platform.arrived() == [correlation(0)]
    assert platform.waiting() == []


def test_an_event_that_is_refused_for_good_is_a_dead_letter_before_anything_else(platform, told):
    platform.worker().call("hub_hub", event_batch([records(audit(0), audit(1))]))
    first = platform.peer.received()[0]
    platform.peer.script(Behaviour("refuse_items", times=0, ids=(first,)))
    platform.worker().call("hub_hub", event_batch([records(audit(0), audit(2))]))
    (letter,) = platform.dead()
    assert (letter.stage, letter.destination, letter.code, letter.event_id) == (
        "deliver",
        "sentinel",
        "azure_400",
        first,
    )
    assert letter.raw is not None
    assert told()[-1].dead == 1


def test_when_nothing_can_be_kept_the_batch_has_to_come_again(platform, told):
    """Destination and state are both away: only then the function raises, and the retry policy holds the pointer."""
    platform.peer.dialect.role = False
    worker = platform.worker(AITRAIL_STATE_URL=f"{platform.server.url}/no-such-container")
    with pytest.raises(RunError, match="waiting ConfigError"):
        worker.call("hub_hub", event_batch([records(audit(0))]))
    assert told()[-1].outcome == "failed"
    platform.peer.dialect.role = True
    worker.call("hub_hub", event_batch([records(audit(0))]))
    assert platform.arrived() == [correlation(0)]


def test_a_dead_letter_that_cannot_be_kept_holds_the_batch(platform, told):
    worker = platform.worker(AITRAIL_STATE_URL=f"{platform.server.url}/no-such-container")
    with pytest.raises(RunError, match="dead_letters ConfigError"):
        worker.call("hub_hub", event_batch([records(audit(0)), b"rubbish"]))


def test_a_record_on_which_our_own_code_fails_is_the_only_dead_letter(platform, told, monkeypatch):
    from aitrail.normalize.registry import NORMALIZERS

    whole = NORMALIZERS["azure_openai"]

    def broken(raw, context):
        if correlation(51).encode() in raw:
            raise ZeroDivisionError(raw.decode())
        return whole(raw, context)

    monkeypatch.setitem(NORMALIZERS, "azure_openai", broken)
    batch = event_batch([records(audit(50)), records(audit(51), audit(52)), records(audit(53))], 40)
    platform.worker().call("hub_hub", batch)
    assert sorted(platform.arrived()) == [correlation(50), correlation(52), correlation(53)]
    (letter,) = platform.dead()
    assert (letter.position, letter.index, letter.code) == (41, 0, "internal_limit")
    (line,) = told()
    assert line.cause.startswith("bug ZeroDivisionError at ")
    assert correlation(51) not in msgspec.json.encode(line).decode(), "the text of a bug may hold content"
    assert (line.new, line.dead) == (3, 1)


def test_the_halves_of_a_call_in_one_batch_are_one_event(platform):
    bodies = [records(*(gateway(number) for number in range(3))), records(*(llm(number) for number in range(3)))]
    platform.worker().call("hub_hub", event_batch(bodies))
    rows = [msgspec.json.decode(platform.peer.bodies(uid)[0]) for uid in platform.peer.received()]
    assert len(rows) == 3
    assert all(row["UserId"] and row["TokenCount"] == 40 for row in rows)


def test_an_empty_batch_is_nothing(platform, told):
    worker = platform.worker()
    worker.call("hub_hub", [])
    assert told() == []
    worker.call("hub_hub", event_batch([b"", b"[]"]))
    assert (told()[-1].outcome, told()[-1].records) == ("ok", 0)


def test_a_batch_whose_time_is_over_before_it_began_has_to_come_again(platform, told, monkeypatch):
    worker = platform.worker()
    monkeypatch.setattr(azure_runs, "deadline_of", lambda seconds: lambda: 0.0)
    with pytest.raises(RunError, match="time of this run is over"):
        worker.call("hub_hub", event_batch([records(audit(0))]))
    assert told()[-1].outcome == "failed"
