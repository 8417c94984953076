"""The scripted incidents of the day: what happened, who did it, and what a collector is expected to find.

Each is a function that gives its records; the same wires write them as those of ordinary traffic. Card numbers are the
networks' public test numbers, the access key is the one of the AWS documentation, hosts end in example.com or .test.
"""

from collections.abc import Callable, Collection

from msgspec import Struct

from aitrail.demo import incidents_cloud, incidents_text
from aitrail.demo.call import Record
from aitrail.demo.scene import Scene


class Incident(Struct, frozen=True):
    """One scripted incident.

    Attributes:
        users: ids of who did it (or whose credential did), or the name of the agent.
        expected: what at least one of its events must show, each as ``field=value`` (``field~value``: contains).
    """

    name: str
    title: str
    users: tuple[str, ...]
    expected: tuple[str, ...]
    script: Callable[[Scene], None]

    @property
    def story(self) -> str:
        """What happened, in one sentence for people."""
        return str(incidents_text.script()["stories"][self.name])


INCIDENTS: tuple[Incident, ...] = (
    Incident(
        "llmjacking",
        "LLMjacking with a stolen access key",
        ("ci-deploy",),
        ("credential_id=AKIAIOSFODNN7EXAMPLE", "outcome_status=denied", "action=invokemodel", "src_ip=192.0.2.77"),
        incidents_cloud.llmjacking,
    ),
    Incident(
        "cross-department",
        "Deal text reaches retail",
        ("charlotte.meyer", "giulia.ferrante"),
        ("user_id=giulia.ferrante", "app=branch-copilot"),
        incidents_text.cross_department,
    ),
    Incident(
        "jailbreak-bot",
        "Jailbreak run against the customer bot",
        ("cust-66613",),
        ("outcome_status=blocked", "injection_tier=high", "user_id=cust-66613"),
        incidents_text.jailbreak,
    ),
    Incident(
        "card-leak",
        "Card numbers in an answer",
        ("cust-20418",),
        ("leakage_types~response:", "response_classification=financial"),
        incidents_text.card_leak,
    ),
    Incident(
        "indirect-injection",
        "Instructions hidden in a document",
        ("kyc-agent",),
        ("injection_tier=high", "tool~send_email"),
        incidents_text.indirect_injection,
    ),
    Incident(
        "secret-paste",
        "A password pasted into a prompt",
        ("adrian.popescu",),
        ("leakage_types~prompt:secret/", "user_id=adrian.popescu"),
        incidents_text.secret_paste,
    ),
    Incident(
        "capture-redirect",
        "Prompts siphoned by data capture",
        ("stefan.ilic",),
        ("action=createendpointconfig", "action=updateendpoint", "destination_uri~s3://mlops-mirror-999988887777"),
        incidents_cloud.capture_redirect,
    ),
    Incident(
        "prompt-extraction",
        "The bot's instructions are read out",
        ("cust-31337",),
        ("prompt_classification=prompt_extraction", "user_id=cust-31337"),
        incidents_text.prompt_extraction,
    ),
    Incident(
        "guardrail-off",
        "Guardrail deleted, logging switched off",
        ("felix.gruber",),
        ("action=deleteguardrail", "action=deletemodelinvocationloggingconfiguration", "mfa=false"),
        incidents_cloud.guardrail_off,
    ),
    Incident(
        "weights-copied",
        "Model weights copied",
        ("felix.gruber",),
        ("action_kind=weights", "action=putmodelpackagegrouppolicy", "target_account=999988887777"),
        incidents_cloud.weights_copied,
    ),
)
LOGGING_OFF_SECOND = incidents_cloud.LOGGING_OFF  # seconds after midnight; until the end of the day


class Traces(Struct, frozen=True):
    """An incident as it was written: its records by (record type, id that the source gave)."""

    name: str
    title: str
    story: str
    users: tuple[str, ...]
    expected: tuple[str, ...]
    records: tuple[tuple[str, str], ...]
    first: float
    last: float


def play(seed: int, day: str, names: Collection[str] | None = None) -> tuple[list[Record], list[Traces]]:
    """The incidents of ``day`` (all, or those of ``names``): their records, and where to find them."""
    records: list[Record] = []
    traces: list[Traces] = []
    for incident in INCIDENTS:
        if names is not None and incident.name not in names:
            continue
        scene = Scene(seed, day, incident.name)
        incident.script(scene)
        ids: dict[tuple[str, str], None] = {}
        for record in scene.records:
            ids[record.record_type, record.upstream_id] = None
        times = [record.time for record in scene.records]
        traces.append(
            Traces(
                name=incident.name,
                title=incident.title,
                story=incident.story,
                users=incident.users,
                expected=incident.expected,
                records=tuple(ids),
                first=min(times),
                last=max(times),
            )
        )
        records += scene.records
    return records, traces
