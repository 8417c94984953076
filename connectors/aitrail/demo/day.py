"""The schedule of a working day: who uses which application when, and the records that every log keeps of it."""

from collections.abc import Callable, Iterator
from datetime import date
from typing import Literal

import msgspec

from aitrail.demo import background, text, wire_apim, wire_azure, wire_bedrock, wire_cloudtrail, wire_litellm, wire_otel
from aitrail.demo import wire_sagemaker as capture
from aitrail.demo.call import Call, Guard, Record, Status
from aitrail.demo.org import APPS, MODELS, SERVICES, STAFF, Actor, App, Model, Person, digest
from aitrail.demo.rng import Rng
from aitrail.demo.times import day_start

# Calls by hour of the day (UTC), as weights.
HOURS: dict[str, tuple[float, ...]] = {
    "office": (0, 0, 0, 0, 0, 0.1, 0.6, 2.5, 8, 12, 13, 12, 7, 10, 12, 11, 8, 4, 1.5, 0.8, 0.3, 0.1, 0, 0),
    "customers": (1, 0.6, 0.4, 0.3, 0.5, 1, 2.5, 4, 6, 8, 8, 7.5, 8, 7, 6, 6, 6.5, 7, 7.5, 7, 6, 4.5, 3, 1.8),
    "always": (2, 1.6, 1.4, 1.3, 1.5, 2, 3, 4.5, 5.5, 6, 6, 6, 6.2, 6, 5.5, 5.5, 5.6, 5.8, 6, 5.5, 5, 4, 3, 2.4),
    "night": (2, 8, 9, 6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.5),
}
_CLOCK: tuple[int, ...] = tuple(range(24))

# Events that one call of an application becomes, on average, over all logs (a usage row comes for 10/16 of the
# calls of Azure OpenAI, a capture record for 6/10 of those of SageMaker).
EVENTS_PER_CALL = {
    "litellm/azure": 2.6, "litellm/bedrock": 3.0, "apim/azure": 2.6, "otel": 1.0, "bedrock": 2.0, "azure": 1.6,
    "sagemaker": 1.6, "spend": 1.0,
}  # fmt: skip
BACKGROUND = 0.08  # share of the events that are control plane calls
# How much of a working day's traffic there is at weekends, by the curve that an application follows.
WORKDAY: dict[str, float] = dict.fromkeys(HOURS, 1.0)
SATURDAY: dict[str, float] = {"office": 0.05, "customers": 0.6, "always": 0.7, "night": 1.0}
SUNDAY: dict[str, float] = {"office": 0.03, "customers": 0.45, "always": 0.6, "night": 1.0}
FAILURES: tuple[tuple[Status, ...], tuple[float, ...]] = (
    ("success", "throttled", "error", "blocked"),
    (0.9935, 0.003, 0.0025, 0.001),
)


class Traffic:
    """Makes calls. One instance, one stream of random values.

    Args:
        names: what makes the stream different from others (seed, day, application).
    """

    def __init__(self, *names: object) -> None:
        self.rng = Rng(*names)

    def time(self, start: float, hours: str) -> float:
        """A time of the day that begins at ``start``, by the curve ``hours``; milliseconds."""
        rng = self.rng
        hour = rng.weighted(_CLOCK, HOURS[hours])
        return start + hour * 3600 + int(rng.random() * 3600_000) / 1000

    def actor(self, app: App) -> Actor:
        """Who uses ``app``: of its people, the earlier ones more often."""
        if not app.users:
            return SERVICES[app.service]
        staff = STAFF[app.users[0]]
        r = self.rng.random()
        return staff[int(r * (0.35 + 0.65 * r) * len(staff))]

    def session(self, app: App, start: float, *, limit: int = 99) -> Iterator[Call]:
        """One conversation of ``app`` that begins at ``start``: at most ``limit`` calls."""
        rng = self.rng
        actor = self.actor(app)
        if app.texts == "features":
            yield self._scoring(app, actor, start)
            return
        turns = text.conversation(rng, app.texts, turns=limit)
        model = MODELS[app.models[0] if len(app.models) == 1 or rng.chance(0.6) else rng.pick(app.models)]
        session = f"conv-{rng.hex(12)}"
        end_user = f"cust-{rng.between(10000, 99999)}" if app.customers else ""
        ip = self._ip(actor, end_user, start)
        purpose, ticket = self._purpose(app)
        history: tuple[tuple[str, str], ...] = ()
        t = start
        for prompt, answer in turns:
            call = self.call(app, actor, model, t, prompt, answer, session=session, history=history)
            call.end_user, call.ip, call.purpose, call.ticket = end_user, ip, purpose, ticket
            yield call
            if call.status != "success":
                return
            history = (*history, (prompt, answer))
            t = round(t + call.latency + 6 + rng.skewed(25.0), 3)

    def call(
        self,
        app: App,
        actor: Actor,
        model: Model,
        t: float,
        prompt: str,
        answer: str,
        *,
        session: str,
        history: tuple[tuple[str, str], ...] = (),
        status: Status | None = None,
    ) -> Call:
        """One call with plausible tokens, latency and ids; ``status`` None draws one at the usual rates."""
        rng = self.rng
        earlier = sum(len(a) + len(b) for a, b in history)
        prompt_tokens = (len(app.system) + earlier + len(prompt)) // 4 + 9
        if status is None:
            status = rng.weighted(*FAILURES)
            if status != "success" and app.gateway == "sagemaker":
                status = "throttled"
        assert status is not None
        done = status == "success"
        completion_tokens = len(answer) // 4 + 1 if done and model.body != "embedding" else 0
        first = rng.skewed(model.first_token_ms) / 1000 if done else 0.08
        latency = first + (completion_tokens / model.tokens_per_s if model.tokens_per_s else 0.0)
        guard = None
        if status == "blocked":
            guard = Guard("azure", "azure-content-filter", "violence", "blocked")
            if model.provider != "azure":
                status, guard = "throttled", None
        return Call(
            start=t,
            latency=round(latency, 4),
            actor=actor,
            app=app,
            model=model,
            session=session,
            prompt=prompt,
            answer=answer if done else "",
            request_id=rng.uuid(),
            call_id=rng.uuid(),
            trace_id=rng.hex(32),
            span_id=rng.hex(16),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cached_tokens=(earlier // 4 // 128) * 128 if done and model.body == "openai" else 0,
            history=history,
            status=status,
            guard=guard,
            streamed=app.gateway in ("litellm", "apim", "bedrock") and rng.random() < 0.45,
            first_token=round(first, 4),
        )

    def _scoring(self, app: App, actor: Actor, t: float) -> Call:
        rng = self.rng
        amount = rng.between(1, 900) + rng.below(100) / 100
        features = ",".join(str(value) for value in (amount, *map(rng.below, (24, 7, 2, 40, 365, 3))))
        score = f"0.{rng.below(900):04d}"
        call = self.call(app, actor, MODELS[app.models[0]], t, features, score, session="")
        call.ip = actor.office_ip
        return call

    def _ip(self, actor: Actor, end_user: str, t: float) -> str:
        if isinstance(actor, Person):
            # Whoever works from home does so the whole day.
            home = int(digest(f"{actor.user_id}/{int(t // 86400)}", 2), 16) < 60
            return actor.home_ip if home else actor.office_ip
        return f"198.51.100.{100 + self.rng.below(150)}" if end_user else actor.office_ip

    def _purpose(self, app: App) -> tuple[str, str]:
        rng = self.rng
        if app.department == "support" and rng.chance(0.6):
            return "customer contact", f"CS-{rng.between(20000, 29999)}"
        if app.department == "investment-banking" and rng.chance(0.35):
            return "pitch work", f"DEAL-{rng.between(100, 180)}"
        if app.name == "kyc-agent":
            return "kyc review", f"KYC-{rng.between(4000, 4999)}"
        return "", ""


def _litellm(call: Call, traffic: Traffic) -> list[Record]:
    rows = [wire_litellm.older(call) if call.app.one_file_per_call else wire_litellm.payload(call)]
    gateway_refused = call.guard is not None and call.guard.by == "litellm" and call.guard.action == "blocked"
    if gateway_refused or call.status == "denied":
        return rows  # nothing reached the provider
    gateway = SERVICES["svc-litellm"]
    inner = msgspec.structs.replace(call, actor=gateway, ip=gateway.office_ip, call_id=traffic.rng.uuid())
    if call.model.provider == "azure":
        rows += wire_azure.rows(inner, object_id=gateway.object_id, account="OAI-EXAMPLE-BOT")
    else:
        metadata = {"user_id": call.actor.user_id, "department": call.app.department, "session_id": call.session}
        rows += [wire_cloudtrail.bedrock(inner), wire_bedrock.invocation(inner, metadata=metadata)]
    return rows


def _apim(call: Call, _: Traffic) -> list[Record]:
    gateway = SERVICES["svc-apim"]
    inner = msgspec.structs.replace(call, actor=gateway, ip=gateway.office_ip)
    return wire_apim.rows(call) + wire_azure.rows(inner, object_id=gateway.object_id, account="OAI-EXAMPLE-WEU")


def _otel(call: Call, traffic: Traffic) -> list[Record]:
    rows = wire_otel.spans(call)
    if traffic.rng.random() < 0.05:
        values = {"http.request.method": "GET", "url.path": "/v1/tickets", "http.response.status_code": 200}
        rows.append(wire_otel.plain_span(call, "GET /v1/tickets", values))
    return rows


def _bedrock(call: Call, _: Traffic) -> list[Record]:
    return [wire_cloudtrail.bedrock(call), wire_bedrock.invocation(call)]


def _azure(call: Call, _: Traffic) -> list[Record]:
    # People sign in with Entra; the batch job has an API key, and then the log names nobody.
    object_id = call.actor.object_id if isinstance(call.actor, Person) else ""
    return wire_azure.rows(call, object_id=object_id, account="OAI-EXAMPLE-WEU")


def _sagemaker(call: Call, traffic: Traffic) -> list[Record]:
    rows = [wire_cloudtrail.endpoint(call)]
    if call.status == "success" and traffic.rng.random() < 0.6:  # InitialSamplingPercentage: 60
        rows.append(capture.capture(call, traffic.rng.uuid()))
    return rows


def _spend(call: Call, _: Traffic) -> list[Record]:
    return [wire_litellm.spend(call)]


WIRES: dict[str, Callable[[Call, Traffic], list[Record]]] = {
    "litellm": _litellm,
    "apim": _apim,
    "otel": _otel,
    "bedrock": _bedrock,
    "azure": _azure,
    "sagemaker": _sagemaker,
    "spend": _spend,
}


def records_of(call: Call, traffic: Traffic) -> list[Record]:
    """All records that the logs keep of ``call``."""
    return WIRES[call.app.gateway](call, traffic)


def _events_per_call(app: App) -> float:
    provider: Literal["azure", "bedrock", "sagemaker"] = MODELS[app.models[0]].provider
    found = EVENTS_PER_CALL.get(app.gateway)
    return found if found is not None else EVENTS_PER_CALL[f"{app.gateway}/{provider}"]


def rhythm(day: str) -> dict[str, float]:
    """How much of a working day's traffic there is on ``day``."""
    return {5: SATURDAY, 6: SUNDAY}.get(date.fromisoformat(day).weekday(), WORKDAY)


def weight(share: dict[str, float]) -> float:
    """The events of a day with the rhythm ``share``, compared with a working day."""
    events = {app.name: app.weight * _events_per_call(app) for app in APPS.values()}
    active = sum(events[app.name] * share[app.hours] for app in APPS.values())
    return BACKGROUND + (1 - BACKGROUND) * active / sum(events.values())


def plan(events: int, share: dict[str, float] = WORKDAY) -> dict[str, int]:
    """How many calls each application makes so that a working day has about ``events`` events, without incidents."""
    per_weight = sum(app.weight * _events_per_call(app) for app in APPS.values())
    scale = events * (1 - BACKGROUND) / per_weight
    return {app.name: max(1, round(app.weight * scale * share[app.hours])) for app in APPS.values()}


def ordinary(seed: int, day: str, events: int, share: dict[str, float] = WORKDAY) -> Iterator[Record]:
    """The records of a day application by application: about ``events`` events, were it a working day."""
    start = day_start(day)
    for name, calls in plan(events, share).items():
        app = APPS[name]
        traffic = Traffic(seed, day, name)
        left = calls
        while left > 0:
            for call in traffic.session(app, traffic.time(start, app.hours), limit=left):
                left -= 1
                yield from records_of(call, traffic)
    rng = Rng(seed, day, "background")
    traffic = Traffic(seed, day, "background-times")
    for _ in range(round(events * BACKGROUND / background.EVENT_SHARE)):
        yield background.routine(rng, traffic.time(start, "always"))
