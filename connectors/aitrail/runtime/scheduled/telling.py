"""What a run says about itself: one line of JSON, which CloudWatch also reads as metrics (embedded metric format).

``Failures`` counts runs in which something went wrong, and ``Failures.CAUSE`` says what: a refused credential or a
missing permission (``auth``), a setting (``config``), the source, a destination, the table of cursors (``state``) or
the dead-letter store that did not answer, or a bug.

Source: CloudWatch user guide, "Embedded metric format specification".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from aitrail.errors import AitrailError, AuthError, ConfigError
from aitrail.printing import printable
from aitrail.runtime.scheduled.direct import Trouble

NAMESPACE = "aitrail"
CAUSES = ("auth", "config", "source", "destination", "state", "dead_letters", "bug")
# Every number that a line may hold, with its unit. The alarms of deploy/aws/template.yaml name them.
UNITS: Mapping[str, str] = {
    "Runs": "Count",
    "Records": "Count",
    "Events": "Count",
    "Duplicates": "Count",
    "DeadLetters": "Count",
    "GivenBack": "Count",
    "Lag": "Seconds",
    "Duration": "Milliseconds",
    "Failures": "Count",
    **{f"Failures.{cause}": "Count" for cause in CAUSES},
}
_encode = msgspec.json.Encoder().encode


def cause_of(trouble: Trouble) -> str:
    """Which of ``CAUSES`` it is."""
    if isinstance(trouble.error, AuthError):
        return "auth"
    if isinstance(trouble.error, ConfigError):
        return "config"
    return {"waiting": "dead_letters"}.get(place := trouble.place.partition(":")[0], place)


def sentence(trouble: Trouble) -> str:
    """What went wrong and how to mend it; no content, nothing that forges a line."""
    return printable(f"{trouble.place}: {trouble.error.sentence}")


def bug(error: BaseException) -> Trouble:
    """What is no error of ours: only its type is told."""
    return Trouble("bug", AitrailError(type(error).__name__))


def line(
    numbers: Mapping[str, float], troubles: Sequence[Trouble], names: Mapping[str, str], now: float, **more: Any
) -> str:
    """One line. ``names`` are the dimensions, from the widest to the narrowest; ``more`` is said beside the metrics."""
    causes = dict.fromkeys(cause_of(one) for one in troubles)
    counted = {"Runs": 1.0, **numbers, "Failures": float(bool(causes)), **{f"Failures.{one}": 1.0 for one in causes}}
    widths = list(names)
    described = {
        "Timestamp": int(now * 1_000),
        "CloudWatchMetrics": [
            {
                "Namespace": NAMESPACE,
                "Dimensions": [widths[: count + 1] for count in range(len(widths))],
                "Metrics": [{"Name": name, "Unit": UNITS[name]} for name in counted],
            }
        ],
    }
    said = list(dict.fromkeys(sentence(one) for one in troubles))[:10]
    return _encode({"_aws": described, **names, **counted, **more, "causes": said}).decode()
