"""What wakes somebody: silence, lag, failures, dead letters, events that wait. Each names its cause.

The app writes one line a run (``aitrail.runtime.azure_function``); the host makes traces of them. Metrics of our own
would need an OpenTelemetry exporter in the package; a line a run needs nothing and carries the same numbers.
"""

from typing import Any

from part_names import resource

_LINES = 'traces | where message startswith \'{"aitrail":"run"\' | extend run = parse_json(message)'
_NUMBER = "tolong(run.{0})"


def _alert(
    name: str, description: str, query: str, window: str, operator: str, threshold: Any, **more: Any
) -> dict[str, Any]:
    criterion: dict[str, Any] = {
        "query": query,
        "timeAggregation": "Count",
        "operator": operator,
        "threshold": threshold,
        "failingPeriods": {"numberOfEvaluationPeriods": 1, "minFailingPeriodsToAlert": 1},
    }
    severity = more.pop("severity", 2)
    return resource(
        "Microsoft.Insights/scheduledQueryRules",
        f"[concat(parameters('name'), '-{name}')]",
        location="[parameters('location')]",
        dependsOn=["[variables('insightsId')]"],
        properties={
            "displayName": f"[concat(parameters('name'), ': {description}')]",
            "description": description,
            "severity": severity,
            "enabled": True,
            "scopes": ["[variables('insightsId')]"],
            "evaluationFrequency": "PT15M",
            "windowSize": window,
            "autoMitigate": True,
            "criteria": {"allOf": [{**criterion, **more}]},
            "actions": {
                "actionGroups": "[if(empty(parameters('actionGroupId')), createArray(), "
                "createArray(parameters('actionGroupId')))]"
            },
        },
    )


def resources() -> list[dict[str, Any]]:
    """All alerts."""
    by_cause = [{"name": "cause", "operator": "Include", "values": ["*"]}]
    by_source = [{"name": "source", "operator": "Include", "values": ["*"]}]
    return [
        _alert(
            "silent", "no run ended well", f'{_LINES} | where run.outcome == "ok"', "PT1H", "LessThan", 1, severity=1
        ),
        _alert(
            "no-records",
            "no record came from any source",
            f"{_LINES} | where {_NUMBER.format('records')} > 0",
            "[parameters('silenceHours')]",
            "LessThan",
            1,
        ),
        _alert(
            "lag",
            "a source lags behind",
            f"{_LINES} | extend lag = todouble(run.lag_seconds), source = tostring(run.source)",
            "PT30M",
            "GreaterThan",
            "[parameters('lagSeconds')]",
            timeAggregation="Maximum",
            metricMeasureColumn="lag",
            dimensions=by_source,
        ),
        _alert(
            "failed",
            "runs fail",
            f'{_LINES} | where run.outcome == "failed" | extend cause = tostring(run.cause)',
            "PT30M",
            "GreaterThan",
            2,
            dimensions=by_cause,
        ),
        _alert(
            "crashed",
            "the host says that a function failed or could not be loaded",
            "union (requests | where success == false), "
            "(exceptions | where cloud_RoleName != '' and problemId !has 'aitrail')",
            "PT30M",
            "GreaterThan",
            2,
            severity=1,
        ),
        _alert(
            "dead-letters",
            "records or events became dead letters",
            f"{_LINES} | extend dead = {_NUMBER.format('dead')}, source = tostring(run.source) | where dead > 0",
            "PT15M",
            "GreaterThan",
            0,
            dimensions=by_source,
        ),
        _alert(
            "waiting",
            "events wait for a destination for more than an hour",
            f"{_LINES} | extend oldest = todouble(run.waiting_seconds), cause = tostring(run.cause) "
            "| where oldest > 3600",
            "PT30M",
            "GreaterThan",
            1,
            dimensions=by_cause,
        ),
    ]
