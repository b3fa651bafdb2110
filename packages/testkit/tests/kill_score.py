"""Runs the conformance suite on every mutant and prints which rule kills which.

``python packages/testkit/tests/kill_score.py`` tries every rule on every mutant, for an hour. With
``--first`` each rule is shown a mutant that it is the first to fail for: rules are tried up to the
first that fails, and of the mutants planted for a rule no further one once one is found; that takes
minutes. With ``--planted`` every mutant is tried on the rule that it was planted for alone, in a
minute or two.

It ends with 1 unless each mutant that was tried fails in the rule planted for it and (but for
``--planted``, which cannot tell) each rule is the first to fail for one of its mutants. *First* is
meant in the order of the kit: the rules as the contract lists them, then what stands for no single
rule; a rule's tests as they are written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

from hypothesis import Phase, settings

import network_mutants  # noqa: F401 - plants mutants
from agent_memory_testkit import RULES, ConformanceSuite
from agent_memory_testkit.rules import WHOLE, checked_by
from mutants import MUTANTS, Mutant

BY_NAME = {each.name: each for each in MUTANTS}
_BLOCKING = "test_conc_3_no_call_blocks_the_event_loop"
"""Measures times on an idle machine, so it is tried only on the mutants planted for its rule."""


@dataclass
class Killing:
    """How one mutant fared."""

    mutant: str
    bug: str
    rule: str
    """In which it must fail."""
    failed: list[str] = field(default_factory=list)
    """The rules in which it failed, in the order of the kit."""
    said: list[str] = field(default_factory=list)
    """The message of the first failing test of each."""
    seconds: float = 0.0

    @property
    def first(self) -> str:
        return self.failed[0] if self.failed else "none"


def rules_in_order() -> list[str]:
    """Return the ids of all rules in the order in which the kit tries them."""
    return [*RULES, *WHOLE]


def names_of(rule: str) -> list[str]:
    """Return the names of a rule's tests, as they are written."""
    written = [name for each in reversed(ConformanceSuite.__mro__) for name in vars(each)]
    return [each for each in dict.fromkeys(written) if checked_by(each) == rule]


def tried(mutant: Mutant, rules: Iterable[str], *, stop: bool = False) -> Killing:
    """Run the tests of ``rules`` on a mutant, each rule until its first failing test.

    With ``stop``, no further rule is tried after one that failed.
    """
    started = time.perf_counter()
    killing = Killing(mutant.name, mutant.bug, mutant.rule)
    mutant.suite.setup_class()
    try:
        for rule in rules:
            message = _first_failure(mutant.suite, _tests_to_try(mutant, rule))
            if message is not None:
                killing.failed.append(rule)
                killing.said.append(message)
                if stop:
                    break
    finally:
        mutant.suite.teardown_class()
    killing.seconds = round(time.perf_counter() - started, 2)
    return killing


def _tests_to_try(mutant: Mutant, rule: str) -> list[str]:
    return [each for each in names_of(rule) if each != _BLOCKING or mutant.rule == rule]


def _first_failure(suite: type[ConformanceSuite], names: Sequence[str]) -> str | None:
    for name in names:
        try:
            getattr(suite(), name)()
        except Exception as failure:  # whatever a test raises fails it
            return str(failure) or repr(failure)
    return None


def tried_on_its_rule(mutant: Mutant) -> Killing:
    """Run on a mutant the tests of the rule that it must fail in, and no others."""
    # What CLEAN finds must be left by something.
    return tried(mutant, ["ADD-1", "CLEAN"] if mutant.rule == "CLEAN" else [mutant.rule])


def tried_up_to_the_first(mutant: Mutant) -> Killing:
    """Run on a mutant rule by rule until one fails, and then the one that must fail."""
    killing = tried(mutant, rules_in_order(), stop=True)
    if mutant.rule not in killing.failed:
        more = tried_on_its_rule(mutant)
        killing.failed += more.failed
        killing.said += more.said
    return killing


def tried_until_the_rule_is_first(rule: str) -> list[Killing]:
    """Try the mutants planted for ``rule``, one after the other, until it is the first to fail."""
    killings = []
    for mutant in MUTANTS:
        if mutant.rule == rule:
            killings.append(tried_up_to_the_first(mutant))
            if killings[-1].first == rule:
                break
    return killings


@contextmanager
def first_failures_only() -> Iterator[None]:
    """Let hypothesis stop at the first example that fails, which is always the same one."""
    before = settings.default
    settings.register_profile(
        "first failure", phases=[Phase.generate], database=None, derandomize=True
    )
    settings.load_profile("first failure")
    try:
        yield
    finally:
        settings.register_profile("as before", before)
        settings.load_profile("as before")


# --- the score -----------------------------------------------------------------------------------


def problems(killings: Sequence[Killing], rules: Sequence[str]) -> list[str]:
    """Return what keeps the score of ``rules`` from 100 %."""
    said = [
        f"{each.mutant} survives {each.rule}" for each in killings if each.rule not in each.failed
    ]
    killers = {each.rule for each in killings if each.first == each.rule}
    said += [f"no mutant is killed by {each} first" for each in rules if each not in killers]
    return said


def score(killings: Sequence[Killing]) -> float:
    """Return the share of mutants that fail in their rule, in percent."""
    return 100 * sum(each.rule in each.failed for each in killings) / len(killings)


def table(killings: Sequence[Killing]) -> str:
    """Return Markdown: one line for each mutant."""
    lines = [
        "| mutant | planted bug | must fail in | killed first by | fails in as well | seconds |",
        "|---|---|---|---|---|---:|",
    ]
    for each in killings:
        others = ", ".join(each.failed[1:]) or "—"
        lines.append(
            f"| {each.mutant} | {each.bug} | {each.rule} | {each.first} | {others} "
            f"| {each.seconds:.1f} |"
        )
    return "\n".join(lines)


def _tried_by_name(name: str, how: str) -> list[Killing]:
    with first_failures_only():
        if how == "first":
            return tried_until_the_rule_is_first(name)
        if how == "planted":
            return [tried_on_its_rule(BY_NAME[name])]
        return [tried(BY_NAME[name], rules_in_order())]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Try the conformance suite on wrong backends.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only these mutants; with --first, these rules"
    )
    parser.add_argument("--json", type=Path, help="write the results into this file, too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument(
        "--first", dest="how", action="store_const", const="first", default="all",
        help="find for each rule a mutant that no earlier rule kills",
    )  # fmt: skip
    parser.add_argument(
        "--planted", dest="how", action="store_const", const="planted",
        help="try only the rule that a mutant was planted for",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.how == "first":
        # The last rules take longest: all before them are tried.
        chosen = options.names or rules_in_order()[::-1]
    else:
        chosen = options.names or list(BY_NAME)
    killings: list[Killing] = []
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        trials = [pool.submit(_tried_by_name, name, options.how) for name in chosen]
        for done, trial in enumerate(as_completed(trials), start=1):
            killings += trial.result()
            for each in trial.result():
                sys.stderr.write(
                    f"{done}/{len(chosen)} {each.mutant} ({each.rule}): {each.first}\n"
                )
    in_order = list(BY_NAME)
    killings.sort(key=lambda each: in_order.index(each.mutant))
    found = problems(killings, chosen if options.how == "first" else rules_in_order())
    sys.stdout.write(f"{table(killings)}\n\n")
    sys.stdout.write(f"{len(killings)} mutants, kill score {score(killings):.1f} %\n")
    if options.json:
        result = {
            "score": score(killings),
            "problems": found,
            "mutants": [{**asdict(each), "killed_first_by": each.first} for each in killings],
        }
        options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    sys.stderr.writelines(f"{each}\n" for each in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
