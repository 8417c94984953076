"""Schedules: nothing falls between two runs, nothing is told twice, and no platform is asked for what it cannot do."""

import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from aitrail.compiler import schedule, targets
from aitrail.compiler.lint import lint
from aitrail.compiler.load import load
from aitrail.compiler.metric import catalog
from aitrail.compiler.rule import Correlation, Detection
from aitrail.contentdir import content_path
from aitrail.runtime.cli import cli

RULES = {rule.meta.name: rule for rule in load(content_path("detections")).shipped()}
WINDOWED = [name for name, rule in RULES.items() if isinstance(rule, Correlation)]


def span(text: str) -> int:
    """Seconds of an ISO 8601 duration."""
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?)?", text)
    assert found, text
    assert any(found.groups()), text
    days, hours, minutes = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60


def minutes(text: str) -> int:
    found = re.fullmatch(r"(?:now)?-?(\d+)m(?:@m)?", text)
    assert found, text
    return int(found[1]) * 60


def started(cron: str) -> list[int]:
    """The minutes of an hour at which a search starts."""
    found = re.fullmatch(r"(\d+)(?:-59/(\d+))? \* \* \* \*", cron)
    assert found, cron
    return list(range(int(found[1]), 60, int(found[2] or 60)))


def test_every_rule_fits_every_platform() -> None:
    for rule in RULES.values():
        plan = schedule.plan(rule)
        assert list(schedule.misfits(plan)) == []
        assert plan.period == plan.window + plan.every + plan.slack
        assert plan.hold >= plan.period  # what two runs both see is told once
        sentinel = schedule.for_sentinel(rule)
        assert 300 <= span(sentinel.frequency) <= span(sentinel.period) <= 14 * 86400
        assert span(sentinel.frequency) == plan.every
        assert span(sentinel.period) == plan.period
        assert span(sentinel.group_lookback) <= 7 * 86400
        assert not sentinel.suppression
        elastic = schedule.for_elastic(rule)
        assert minutes(elastic.since) == minutes(elastic.interval) + plan.window + plan.slack
        assert 1 <= len(elastic.suppress_fields) <= 3
        splunk = schedule.for_splunk(rule)
        assert minutes(splunk.earliest) == plan.period
        assert minutes(splunk.suppress_period) == plan.hold
        starts = started(splunk.cron)
        gaps = {(after - before) * 60 for before, after in zip(starts, [*starts[1:], starts[0] + 60], strict=True)}
        assert gaps == {plan.every}
        assert min(gaps) >= 300


def test_searches_do_not_all_start_together() -> None:
    starts = [tuple(started(schedule.for_splunk(rule).cron)) for rule in RULES.values()]
    most = max(sum(minute in one for one in starts) for minute in range(60))
    assert most <= len(RULES) / 2


@pytest.mark.parametrize("target", ["spl", "kql", "esql"])
def test_alerts_are_named_by_columns_of_the_query(target: str) -> None:
    """Suppression by a field that the query does not give would silence everything, or nothing."""
    for rule in RULES.values():
        query = targets.TARGETS[target](rule)
        fields = {
            "spl": schedule.for_splunk(rule).suppress_fields,
            "kql": tuple(catalog(rule.dataset)[field].name_in("sentinel") for field in schedule.plan(rule).fields),
            "esql": schedule.for_elastic(rule).suppress_fields,
        }[target]
        last = query.text if query.target == "eql" else query.text[query.text.rindex("|") :]
        if target == "kql":
            last = query.text[max(query.text.rfind("summarize"), query.text.rfind("| project")) :]
        for field in fields:
            assert re.search(rf"[\s(]{re.escape(field)}(?:,|\s|$)", last), (rule.meta.name, field, last)


def test_an_overlapping_query_looks_back_as_far_as_its_schedule() -> None:
    for name in WINDOWED:
        rule = RULES[name]
        query = targets.TARGETS["esql"](rule)
        plan = schedule.plan(rule)
        if query.method == "overlapping":
            assert query.lookback == plan.window + plan.every


def _changed(rule: Detection, **fields: object) -> list[str]:
    changed = msgspec.structs.replace(rule, **fields)
    return [problem.reason for problem in lint([changed])]


def test_what_no_schedule_can_hold_is_told() -> None:
    rule = RULES["tokens_burst"]
    told = _changed(rule, seconds=14 * 86400)
    assert any("Sentinel looks back at most 14 days" in reason for reason in told)
    assert any("x_suppress.by is not group-by" in reason for reason in _changed(rule, group_by=("app",)))
    suppress = msgspec.structs.replace(rule.meta.suppress, by=("user_id", "app", "model"))
    meta = msgspec.structs.replace(rule.meta, suppress=suppress)
    assert any(
        "Elastic suppresses by at most 3" in reason for reason in _changed(rule, meta=meta, group_by=suppress.by)
    )
    long = msgspec.structs.replace(rule.meta, suppress=msgspec.structs.replace(rule.meta.suppress, seconds=8 * 86400))
    assert any("for at most 7 days" in reason for reason in _changed(rule, meta=long))
    assert any("timespan: no time" in reason for reason in _changed(rule, seconds=0))


def test_a_correlation_that_a_target_cannot_say_is_told() -> None:
    rule = RULES["tokens_burst"]
    told = _changed(rule, type="value_percentile", percentile=90)
    assert any("spl cannot express value_percentile" in reason for reason in told)
    assert any("kql cannot express value_percentile" in reason for reason in told)


def test_without_suppression_an_alert_is_named_by_its_event() -> None:
    plan = schedule.planned("x", window=0, every=300, sources=(), group=("user_id",), suppress=0)
    assert plan.fields == ("tenant_id", "user_id", "event_id")
    assert plan.hold == 600


def test_late_records_get_time() -> None:
    late = schedule.planned("x", window=0, every=300, sources=("litellm", "cloudtrail"), group=(), suppress=60)
    soon = schedule.planned("x", window=0, every=300, sources=("litellm",), group=(), suppress=60)
    assert late.slack == 1200 > soon.slack == 300


@pytest.mark.parametrize(
    ("seconds", "text"), [(300, "PT5M"), (5400, "PT1H30M"), (86400, "P1D"), (93600, "P1DT2H"), (90, "PT2M")]
)
def test_durations(seconds: int, text: str) -> None:
    assert schedule.iso(seconds) == text


def test_explain_says_how_each_platform_runs_a_rule(tmp_path: Path) -> None:
    told = CliRunner().invoke(cli, ["content", "explain", "tokens_burst"], standalone_mode=False)
    assert told.exception is None, told.exception
    for part in (
        "exact: a window of PT1H that slides",
        "overlapping windows of PT1H plus at most",
        "cron ",
        "-85m@m to now",
        "every PT5M over PT1H25M",
        "from now-85m",
        "suppressed 1440m per organization.id, user.id",
    ):
        assert part in told.output, part


def test_hunting_queries_are_not_scheduled() -> None:
    told = [one.schedule for one in targets.running(RULES["huge_prompt"])]
    assert "not scheduled: a hunting search" in told
    assert told.count("not scheduled: a hunting query") == 2
