"""The taxonomy files and what follows from them."""

import pytest

from aitrail import transform, verdicts
from aitrail.classify import patterns, taxonomy
from aitrail.classify.lexicon import lexicon_concepts
from aitrail.classify.session import SIGNALS
from aitrail.contentdir import content_path
from aitrail.errors import ConfigError
from aitrail.runtime.cli import names


def test_atlas_is_complete_for_its_version():
    table = taxonomy.atlas()
    assert (table["version"], len(table["tactics"]), len(table["techniques"])) == ("5.6.0", 16, 170)
    assert table["techniques"]["AML.T0051.000"] == {"name": "Direct", "tactics": ["AML.TA0005"], "parent": "AML.T0051"}
    for entry in table["techniques"].values():
        assert set(entry["tactics"]) <= set(table["tactics"])
        assert entry.get("parent", "AML.T0051") in table["techniques"]


def test_owasp_editions_map_one_to_one():
    table = taxonomy.owasp()
    mapping = table["mapping"]["2025-2026"]
    assert sorted(mapping) == sorted(table["editions"]["2025"])
    assert sorted(mapping.values()) == sorted(table["editions"]["2026"])
    for old, new in mapping.items():
        same = table["editions"]["2025"][old] == table["editions"]["2026"][new]
        assert same or (old, new) == ("LLM07", "LLM08")


def test_ids_carry_their_editions():
    assert taxonomy.atlas_id("AML.T0054") == "aml.t0054@5.6.0"
    assert taxonomy.owasp_ids("LLM06") == ("llm06:2025", "llm03:2026")
    with pytest.raises(ConfigError):
        taxonomy.atlas_id("AML.T9999")
    with pytest.raises(ConfigError):
        taxonomy.owasp_ids("LLM11")


def test_agentic_ids_stand_beside_those_for_models():
    assert sorted(taxonomy.owasp_agentic()["editions"]["2026"]) == [f"ASI{number:02d}" for number in range(1, 11)]
    assert taxonomy.agentic_id("ASI06") == "asi06:2026"
    assert names.owasp_name("asi01:2026") == "Agent Goal Hijack"
    assert names.owasp_name("asi01:2025") == ""
    assert taxonomy.signals()["indirect_injection"].owasp == ("llm01:2025", "llm01:2026", "asi01:2026")
    with pytest.raises(ConfigError):
        taxonomy.agentic_id("ASI11")


def test_every_id_that_a_finding_can_carry_is_in_the_tables():
    """Of patterns, sessions, echoes and providers, in every edition that events carry."""
    table = patterns.read_toml(content_path("taxonomy", "signals.toml"))["signals"]
    for entry in table.values():
        assert set(entry["atlas"]) <= set(taxonomy.atlas()["techniques"])
        assert set(entry["owasp"]) <= set(taxonomy.owasp()["editions"]["2025"])
    beside = {
        *SIGNALS,
        verdicts.NEW_IN_ANSWER,
        *transform._ECHOES,
        *(signal for _, signal in verdicts.PROVIDER_ATTACKS.values()),
    }
    assert beside <= set(taxonomy.signals())
    for tags in taxonomy.signals().values():
        assert tags.owasp, "every finding has an OWASP id"
        assert all(names.atlas_name(tag) for tag in tags.atlas)
        assert all(names.owasp_name(tag) for tag in tags.owasp)
        assert {tag.partition(":")[2] for tag in tags.owasp} == {"2025", "2026"}
        assert all(tag.endswith("@5.6.0") for tag in tags.atlas)


def test_every_reason_of_sessions_and_echoes_has_points():
    assert {*SIGNALS, verdicts.NEW_IN_ANSWER, "leak_context_response", "scorer_attack"} <= set(verdicts.POINTS)


def test_attack_names_current_techniques():
    table = patterns.read_toml(content_path("taxonomy", "attack.toml"))
    assert table["version"] == "19"
    for entry in table["techniques"].values():
        assert "Defense Evasion" not in entry["tactics"], "split in version 19"
    for old, entry in table["revoked"].items():
        assert old not in table["techniques"]
        assert entry["by"] in table["techniques"]


def test_every_signal_of_the_patterns_has_tags():
    used = {concept.signal for concept in [*patterns.load_concepts(), *lexicon_concepts()]}
    assert used <= set(taxonomy.signals())
    assert taxonomy.tags_of(frozenset(("jailbreak", "prompt_extraction"))).owasp == (
        "llm01:2025", "llm01:2026", "llm07:2025", "llm08:2026",
    )  # fmt: skip
