"""The frame that a chat template puts around a raw ``prompt``: instructions before, one user turn, a marker behind.

Only the frame is taken off: what stands before the first user marker was written by the application, and the marker
that asks for the answer closes the text. Everything between is user text, with whatever markers it holds: those may be
forged, and are evidence. A prompt that does not begin with a template is user text as it is.
Sources: the model cards of Llama 2, Llama 3 and Mistral Instruct; Anthropic's legacy text completion format; ChatML.
"""

from msgspec import Struct


class _Template(Struct, frozen=True):
    """``starts`` may be absent; ``system`` and ``close`` enclose instructions; ``user`` begins the turn."""

    starts: tuple[str, ...]
    system: str
    close: str
    user: str
    tails: tuple[str, ...]


_TEMPLATES = (
    _Template(
        ("<|begin_of_text|>",),
        "<|start_header_id|>system<|end_header_id|>",
        "<|eot_id|>",
        "<|start_header_id|>user<|end_header_id|>",
        ("<|start_header_id|>assistant<|end_header_id|>", "<|eot_id|>"),
    ),
    _Template((), "<|im_start|>system", "<|im_end|>", "<|im_start|>user", ("<|im_start|>assistant", "<|im_end|>")),
    _Template(("<s>",), "", "", "[INST]", ("[/INST]",)),
    _Template((), "", "", "Human:", ("Assistant:",)),
)
_SYS, _END_SYS = "<<SYS>>", "<</SYS>>"


def unwrap(prompt: str) -> tuple[str, str]:
    """Give ``(system, user)`` text of a raw prompt; without a template at its beginning ``("", prompt)``."""
    text = prompt.strip()
    for template in _TEMPLATES:
        rest = text
        for start in template.starts:
            rest = rest.removeprefix(start).lstrip()
        system = ""
        if template.system and rest.startswith(template.system):
            inside, close, after = rest[len(template.system) :].partition(template.close)
            if not close:
                continue
            system, rest = inside.strip(), after.lstrip()
        if not rest.startswith(template.user):
            continue
        rest = rest[len(template.user) :].lstrip()
        if not system and rest.startswith(_SYS) and _END_SYS in rest:
            inside, _, rest = rest[len(_SYS) :].partition(_END_SYS)
            system = inside.strip()
        for tail in template.tails:
            rest = rest.rstrip().removesuffix(tail)
        return system, rest.strip()
    return "", prompt
