"""What the scripts of incidents are written with: calls and API calls at a time of the day."""

from typing import Any

from msgspec import Raw

from aitrail.demo import day as schedule
from aitrail.demo.call import Guard, Record, Status, ToolUse
from aitrail.demo.org import APPS, BY_ID, MODELS, SERVICES, Person
from aitrail.demo.rng import Rng
from aitrail.demo.times import day_start
from aitrail.demo.wire_cloudtrail import Api, identity, record


def clock(text: str) -> float:
    """Seconds after midnight of ``HH:MM:SS``."""
    hours, minutes, seconds = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


class Scene:
    """Collects the records of one incident."""

    def __init__(self, seed: int, day: str, name: str) -> None:
        self.midnight = day_start(day)
        self.rng = Rng(seed, day, "incident", name)
        self.traffic = schedule.Traffic(seed, day, "incident-traffic", name)
        self.records: list[Record] = []

    def call(
        self,
        at: str,
        app: str,
        prompt: str,
        answer: str,
        *,
        user: str = "",
        end_user: str = "",
        ip: str = "",
        session: str,
        history: tuple[tuple[str, str], ...] = (),
        status: Status = "success",
        guard: Guard | None = None,
        model: str = "",
        purpose: str = "",
        ticket: str = "",
        tools: tuple[ToolUse, ...] = (),
        asked: ToolUse | None = None,
    ) -> None:
        """One call of ``app`` at ``at`` (HH:MM:SS), written to all its logs."""
        application = APPS[app]
        actor = BY_ID[user] if user else SERVICES[application.service]
        call = self.traffic.call(
            application,
            actor,
            MODELS[model or application.models[0]],
            self.midnight + clock(at) + self.rng.below(1000) / 1000,
            prompt,
            answer,
            session=session,
            history=history,
            status=status,
        )
        call.guard = guard
        call.streamed = False
        call.end_user, call.purpose, call.ticket, call.tools, call.asked = end_user, purpose, ticket, tools, asked
        if tools:
            call.prompt_tokens += sum(len(tool.arguments) + len(tool.result) for tool in tools) // 4
        if asked is not None:
            call.completion_tokens = len(asked.arguments) // 4 + 12
        call.ip = ip or actor.office_ip
        self.records += schedule.records_of(call, self.traffic)

    def api(
        self,
        at: float,
        source: str,
        name: str,
        who: Person | Raw,
        *,
        ip: str,
        agent: str,
        request: Any = None,
        response: Any = None,
        mfa: bool = True,
        **more: Any,
    ) -> None:
        """One API call ``at`` seconds after midnight, as CloudTrail sees it."""
        t = self.midnight + at
        self.records.append(
            record(
                Api(
                    time=t,
                    source=source,
                    name=name,
                    identity=identity(who, t, mfa=mfa) if isinstance(who, Person) else who,
                    event_id=self.rng.uuid(),
                    request_id=self.rng.uuid(),
                    ip=ip,
                    agent=agent,
                    request=request,
                    response=response,
                    **more,
                )
            )
        )
