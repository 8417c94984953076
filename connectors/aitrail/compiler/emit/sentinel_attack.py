"""Tags of rules as Sentinel takes them: MITRE ATT&CK in its own, older edition; ATLAS and OWASP as text.

Facts: the tactics are an enumeration of the API ("Alert Rules - Create Or Update", ``AttackTactic``); its techniques
are those before ATT&CK 19, so an id that 19 made is given by the one it replaced. A technique without one of its
tactics is refused by the public repository's validator.
"""

from typing import Any

from aitrail.compiler import tags
from aitrail.compiler.rule import Meta

TACTICS = (
    "Reconnaissance",
    "ResourceDevelopment",
    "InitialAccess",
    "Execution",
    "Persistence",
    "PrivilegeEscalation",
    "DefenseEvasion",
    "CredentialAccess",
    "Discovery",
    "LateralMovement",
    "Collection",
    "Exfiltration",
    "CommandAndControl",
    "Impact",
)
# ATT&CK 19 split Defense Evasion in two.
_OLD_TACTIC = {"DefenseImpairment": "DefenseEvasion", "Stealth": "DefenseEvasion"}


def _tactic(name: str) -> str:
    """``Initial Access`` or ``initial-access`` as Sentinel writes it; empty when it has none."""
    camel = "".join(word.capitalize() for word in name.replace("-", " ").split())
    found = _OLD_TACTIC.get(camel, camel)
    return found if found in TACTICS else ""


def attack(meta: Meta) -> tuple[list[str], list[str]]:
    """Tactics in the order of the matrix, and techniques; from the ATLAS techniques where the rule names no tactic."""
    table = tags.taxonomy("attack.toml")
    old = {entry["by"]: name for name, entry in table["revoked"].items()}
    named = [tag.partition(".")[2] for tag in meta.tags if tag.startswith("attack.")]
    current = [name.upper() for name in named if name.upper() in table["techniques"]]
    tactics = {_tactic(name) for name in named if name.upper() not in table["techniques"]} - {""}
    for technique in current:
        own = [_tactic(name) for name in table["techniques"][technique]["tactics"]]
        if not tactics & set(own):
            tactics.add(next(filter(None, own)))
    if not tactics:
        tactics = _from_atlas(meta)
    return [one for one in TACTICS if one in tactics], sorted({old.get(one, one) for one in current})


def _from_atlas(meta: Meta) -> set[str]:
    """The tactics of ATLAS that have the name of one of ATT&CK's."""
    atlas = tags.taxonomy("atlas.toml")
    ids = [tag.partition(".")[2].upper() for tag in meta.tags if tag.startswith("atlas.")]
    names = [atlas["tactics"][tactic] for one in ids for tactic in _tactics(atlas["techniques"], one)[:1]]
    return {_tactic(name) for name in names} - {""}


def _tactics(techniques: dict[str, Any], one: str) -> list[str]:
    entry = techniques[one]
    return list(entry.get("tactics") or techniques[entry["parent"]]["tactics"])


def frameworks(meta: Meta) -> dict[str, str]:
    """ATLAS and OWASP, each as one text: ``AML.T0051, AML.T0054``."""
    own = tags.editioned(meta.tags)
    return {
        "Atlas": ", ".join(one.partition("@")[0].upper() for one in own["atlas"]),
        "Owasp": ", ".join(one.upper() for one in own["owasp"]),
    }
