"""Every mutant must fail in the rule named beside it, and the message must say so.

Which rule kills each of them first is the table of `kill_score`, which tries more rules on each
and takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent_memory_testkit import ConformanceSuite
from kill_score import (
    BY_NAME,
    first_failures_only,
    names_of,
    problems,
    rules_in_order,
    tried_on_its_rule,
    tried_until_the_rule_is_first,
)
from mutants import MUTANTS, Mutant


@pytest.fixture(autouse=True)
def _first_failures_only() -> Iterator[None]:
    with first_failures_only():
        yield


@pytest.mark.parametrize("mutant", MUTANTS, ids=[each.name for each in MUTANTS])
def test_a_mutant_fails_in_its_rule(mutant: Mutant) -> None:
    killing = tried_on_its_rule(mutant)
    assert killing.failed == [mutant.rule], f"{mutant.name} passes {mutant.rule}"
    [said] = killing.said
    assert "should be:" in said
    assert "calls (the last" in said


@pytest.mark.parametrize(
    "name", ["KeepsTheOldVector", "ReplacesOtherTenantsRecords", "ListsBySecond"]
)
def test_the_state_machine_finds_mutants_too(name: str) -> None:
    mutant = BY_NAME[name]
    mutant.suite.setup_class()
    try:
        with pytest.raises(AssertionError, match=f"broken by {name}"):
            mutant.suite().test_all_methods_agree_with_the_model()
    finally:
        mutant.suite.teardown_class()


def test_a_rule_is_first_to_kill_some_mutant_planted_for_it() -> None:
    killings = tried_until_the_rule_is_first("UPD-2")
    assert [each.first for each in killings] == ["UPD-2"]
    assert problems(killings, ["UPD-2"]) == []
    assert problems(killings, ["UPD-2", "UPD-3"]) == ["no mutant is killed by UPD-3 first"]


def test_every_rule_has_a_mutant() -> None:
    assert {each.rule for each in MUTANTS} == set(rules_in_order())


def test_every_test_of_the_kit_is_tried() -> None:
    tried = [name for rule in rules_in_order() for name in names_of(rule)]
    assert sorted(tried) == sorted(n for n in dir(ConformanceSuite) if n.startswith("test_"))


def test_mutants_have_names_and_bugs_of_their_own() -> None:
    assert len(MUTANTS) >= 65
    assert len(BY_NAME) == len({each.bug for each in MUTANTS}) == len(MUTANTS)
    assert all(each.bug for each in MUTANTS)
