"""Ask several stores the same questions, and print what each of them answers.

    nox -s behaviour                    # all stores; a table in Markdown, with versions and date
    nox -s behaviour -- --only Chroma   # some of them
    nox -s behaviour -- --json FILE     # the answers as JSON, too
    nox -s behaviour -- --page docs/comparison.md

Every answer is what the installed store did just now, through the calls that its users make
(`behaviour_stores`). Nothing leaves this machine. How fast they are is measured by ``run.py``.
"""

from __future__ import annotations

import argparse
import datetime
import html
import json
import logging
import sys
import unicodedata
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from behaviour_stores import MOMENT, STORES, AbsentError, Memory, Store

NEAR_ALICE = [
    "alice",
    "Alice",
    "alice,bob",
    "alice|bob",
    " alice",
    "alice*",
    "al",
    unicodedata.normalize("NFC", "alicé"),
    unicodedata.normalize("NFD", "alicé"),
]
HOSTILE = ["*", "ali*", "%", "alice|bob", "alice} | @user:{bob", 'x"} | *', "' OR '1'='1", "\\"]


def tenants(store: Store) -> str:
    """Whose memories does a filter for one user return?"""
    refused = []
    for user in NEAR_ALICE:
        try:
            store.add([Memory(user, "coffee", user=user)])
        except Exception as error:
            refused.append(f"{_shown([user])} ({type(error).__name__})")
    stored = [user for user in NEAR_ALICE if not any(_shown([user]) in each for each in refused)]
    also: list[str] = []
    lost: list[str] = []
    for user in stored:
        try:
            found = store.search("coffee", limit=20, user=user)
        except Exception as error:
            lost.append(f"{_shown([user])} ({type(error).__name__})")
            continue
        if user == "alice":
            also = [each for each in found if each != user]
        if user not in found:
            lost.append(_shown([user]))
    said = [f"also those of {_shown(also)}"] if also else []
    said += [f"nothing for {', '.join(lost)}"] if lost else []
    said += [f"cannot store {', '.join(refused)}"] if refused else []
    return "; ".join(said) or "hers alone"


def hostile(store: Store) -> str:
    """What does a filter return whose value looks like a query?"""
    store.add([Memory("a", "coffee one", user="alice"), Memory("b", "coffee two", user="bob")])
    leaks, fails = [], []
    for value in HOSTILE:
        try:
            if store.search("coffee", limit=10, user=value):
                leaks.append(value)
        except Exception as error:
            fails.append(f"{_shown([value])} ({type(error).__name__})")
    said = [f"memories of others for {_shown(leaks)}"] if leaks else []
    said += [f"an error for {', '.join(fails)}"] if fails else []
    return "; ".join(said) or "nothing"


def rare(store: Store) -> str:
    """1,000 memories of others are nearer: does the filter find all three?"""
    store.add([Memory(f"b{i}", f"coffee {i}", user="bob") for i in range(1_000)])
    store.add([Memory(f"a{i}", f"trains {i}", user="alice") for i in range(3)])
    found = store.search("coffee", limit=3, user="alice")
    return "yes" if len(found) == 3 else f"{len(found)} of 3"


def misspelled(store: Store) -> str:
    """What does a filter on a field that does not exist return?"""
    store.add([Memory("a", "coffee one"), Memory("b", "coffee two")])
    return _outcome(lambda: store.search("coffee", limit=10, usr="alice"), 2)


def none(store: Store) -> str:
    """What does a filter whose value is None return?"""
    store.add([Memory("a", "coffee one"), Memory("b", "coffee two")])
    return _outcome(lambda: store.search("coffee", limit=10, user=None), 2)


def count(store: Store) -> str:
    """Of 1,200 memories of one user and 300 of another: how many has the first?"""
    store.add([Memory(f"a{i}", f"coffee {i}", user="alice") for i in range(1_200)])
    store.add([Memory(f"b{i}", f"coffee {i}", user="bob") for i in range(300)])
    return str(store.count("alice"))


def total(store: Store) -> str:
    """Does a search for one result tell how many match (50)?"""
    store.add([Memory(f"a{i}", f"coffee {i}", user="alice") for i in range(50)])
    return str(store.total("coffee", "alice"))


def ties(store: Store) -> str:
    """40 equal texts in pages of 10: is each on one page?"""
    store.add([Memory(f"m{i:02}", "coffee") for i in range(40)])
    pages = [store.search("coffee", limit=10, offset=offset) for offset in range(0, 40, 10)]
    shown = [each for page in pages for each in page]
    missing, repeated = 40 - len(set(shown)), len(shown) - len(set(shown))
    if missing or repeated:
        return f"{missing} missing, {repeated} repeated"
    return "yes, ordered by id" if shown == sorted(shown) else "yes, in another order"


def unknown(store: Store) -> str:
    """What does an update of an id do that does not exist?"""
    store.add([Memory("a", "coffee one")])
    said = store.update(Memory("b", "coffee two"))
    if "b" in store.search("coffee", limit=10):
        return "creates it"
    return "nothing, and says so" if said == 0 else "nothing, silently"


def meaning(store: Store) -> str:
    """After a text was updated: is it found by its new meaning, and not by its old one?"""
    store.add([Memory("a", "coffee one"), Memory("b", "coffee two"), Memory("c", "trains two")])
    store.change(Memory("a", "trains one"))
    new = "a" in store.search("trains", limit=2)
    old = "a" in store.search("coffee", limit=1) or "a" in store.search("coffee one", limit=1)
    return "yes" if new and not old else f"new: {_yes(new)}, old: {_yes(old)}"


def deletes(store: Store) -> str:
    """What does deleting one that exists and one that does not return?"""
    store.add([Memory("a", "coffee one"), Memory("b", "coffee two")])
    said = store.delete(["a", "unknown"])
    assert store.search("coffee", limit=10) == ["b"]
    if isinstance(said, list) and len(set(map(str, said))) == 1:
        said = f"{said[0]} each time"
    return str(said)


def metadata(store: Store) -> str:
    """Does metadata read back equal?"""
    changed = []
    for name, value in {
        "None": None,
        "an empty list": [],
        "a list": ["b", "a", "b"],
        "a nested object": {"a": {"b": 1}},
        "a boolean": True,
        "a float": 0.1,
        "a time as text": MOMENT.isoformat(),
    }.items():
        try:
            store.add([Memory("a", f"coffee {name}", metadata={"x": value})])
            back = store.metadata("a")
        except Exception as error:
            changed.append(f"{name} ({type(error).__name__})")
            continue
        if back.get("x", "nothing") != value or type(back.get("x")) is not type(value):
            changed.append(name)
    return f"all but {', '.join(changed)}" if changed else "yes"


def models(store: Store) -> str:
    """Is a space opened with another model of the same size refused?"""
    store.add([Memory("a", "coffee one")])
    try:
        store.reopen_with_other_model()
    except AbsentError:
        raise
    except Exception as error:
        return f"yes ({type(error).__name__})"
    return "no"


QUESTIONS: list[Callable[[Store], str]] = [
    tenants,
    hostile,
    rare,
    misspelled,
    none,
    count,
    total,
    ties,
    unknown,
    meaning,
    deletes,
    metadata,
    models,
]


def _outcome(search: Callable[[], list[str]], all_there_are: int) -> str:
    found = search()  # an exception is an answer, too: see answer()
    return "everything" if len(found) == all_there_are else "nothing" if not found else "a part"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _shown(values: list[str]) -> str:
    # Not in backticks: those who read Markdown disagree about a "|" between them in a table.
    coded = (html.escape(ascii(value), quote=False).replace("|", "&#124;") for value in values)
    return ", ".join(f"<code>{each}</code>" for each in coded)


def answer(question: Callable[[Store], str], name: str) -> str:
    """Ask a fresh store one question."""
    store = STORES[name]()
    try:
        return question(store)
    except AbsentError as absent:
        return f"– ({absent})"
    except Exception as error:
        print(f"{name}, {question.__name__}: {error!s:.300}", file=sys.stderr)
        return f"error: {type(error).__name__}"
    finally:
        store.close()


def versions_of(name: str) -> dict[str, str]:
    """Return the versions of what a store is made of."""
    store = STORES[name]()
    try:
        return {each: version(each) for each in store.distributions}
    finally:
        store.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=list(STORES))
    parser.add_argument("--json", type=Path, help="write the answers there")
    parser.add_argument("--page", type=Path, help="put the tables between the marks of this page")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # what the stores log is not an answer
    names = arguments.only or list(STORES)
    answers: dict[str, dict[str, str]] = {}
    for question in QUESTIONS:
        answers[question.__name__] = {name: answer(question, name) for name in names}
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {key: value for name in names for key, value in versions_of(name).items()},
        "questions": {each.__name__: each.__doc__ for each in QUESTIONS},
        "answers": answers,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    if arguments.page:
        put_into(arguments.page, as_markdown(found))
    print(as_markdown(found))


def as_markdown(found: dict[str, Any]) -> str:
    """Return a table for each question: every answer, and which stores gave it."""
    versions = ", ".join(f"{name} {number}" for name, number in sorted(found["versions"].items()))
    lines = [f"Asked on {found['date']}: {versions}."]
    for name, question in found["questions"].items():
        lines += ["", f"**{question}**", "", "| answer | stores |", "|---|---|"]
        stores: dict[str, list[str]] = {}
        for store, said in found["answers"][name].items():
            stores.setdefault(said, []).append(store)
        lines += [f"| {said} | {', '.join(names)} |" for said, names in stores.items()]
    return "\n".join(lines)


def put_into(page: Path, table: str) -> None:
    """Replace what stands between the two marks of a page."""
    before, begin, rest = page.read_text().partition("<!-- nox -s behaviour -->\n")
    _, end, after = rest.partition("<!-- end of nox -s behaviour -->")
    if not (begin and end):
        raise SystemExit(f"{page} has no marks to put the tables between")
    page.write_text(f"{before}{begin}\n{table}\n\n{end}{after}")


if __name__ == "__main__":
    main()
