"""The receivers' part of /metrics, in the Prometheus text format."""

from collections.abc import Iterable, Sequence

from aitrail.web.app import Receiver
from aitrail.web.intake import Committer

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


def render(receivers: Sequence[Receiver], committer: Committer) -> str:
    """Give the receivers' counters."""
    lines: list[str] = []

    def family(name: str, kind: str, told: str, samples: Iterable[tuple[str, float]]) -> None:
        lines.append(f"# HELP {name} {told}")
        lines.append(f"# TYPE {name} {kind}")
        lines.extend(f"{name}{labels} {value:g}" for labels, value in samples)

    family(
        "aitrail_receiver_requests_total",
        "counter",
        "Requests by receiver and what became of them.",
        [
            (_labels(receiver=receiver.name, result=result), count)
            for receiver in receivers
            for result, count in sorted(receiver.stats.requests.items())
        ],
    )
    for field, told in (
        ("records", "Records that were made durable, or became dead letters."),
        ("rejected", "Records that became dead letters."),
        ("bytes", "Bytes of bodies as they were sent."),
    ):
        family(
            f"aitrail_receiver_{field}_total",
            "counter",
            told,
            [(_labels(receiver=receiver.name), getattr(receiver.stats, field)) for receiver in receivers],
        )
    family("aitrail_receiver_commits_total", "counter", "Group commits.", [("", committer.commits)])
    family("aitrail_receiver_waiting_bytes", "gauge", "Bytes that are not durable yet.", [("", committer.waiting)])
    stuck = bool(committer.trouble or committer.paused or not committer.alive)
    family("aitrail_receiver_refusing", "gauge", "1 while records cannot be made durable.", [("", stuck)])
    return "\n".join(lines) + "\n"


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items()) + "}"
