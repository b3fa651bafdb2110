"""Every data command of `agent-memory`: what it stores, finds, prints, and how it fails."""

from __future__ import annotations

import asyncio
import json
import runpy
import shlex
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest

import agent_memory as library
from agent_memory import MemoryRecord, MemoryVectorDatabase, create_memory_vector_db
from agent_memory.cli import demo
from agent_memory.cli.commands import agent_memory
from agent_memory.cli.framework import Command
from agent_memory.cli.output import shortened, visible

_support = runpy.run_path(str(Path(__file__).with_name("cli_support.py")))
cli = _support["cli"]

Cli = Callable[..., Any]

SAMPLE = Path(__file__).parents[3] / "examples" / "memories.jsonl"

FAILING_BACKEND = """
import agent_memory_inmemory
from agent_memory import EmbeddingError, LocalEmbeddings


class FailingEmbeddings(LocalEmbeddings):
    async def aembed_documents(self, texts):
        if any("unlucky" in text for text in texts):
            raise EmbeddingError("the service is gone")
        return await super().aembed_documents(texts)


def create(embeddings, **options):
    return agent_memory_inmemory.create(FailingEmbeddings(), **options)


def broken(embeddings, **options):
    raise KeyError("port")
"""


@pytest.fixture
def failing_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a factory whose embeddings fail for a text that holds 'unlucky'."""
    (tmp_path / "failing_backend.py").write_text(FAILING_BACKEND)
    monkeypatch.syspath_prepend(tmp_path)
    return "failing_backend.create"


def on_database(work: Callable[[MemoryVectorDatabase], Any], **options: Any) -> Any:
    """Run ``work`` on the database that the commands of the test use."""

    async def open_and_work() -> Any:
        async with create_memory_vector_db(**options) as db:
            return await work(db)

    return asyncio.run(open_and_work())


def lines_of(*records: dict[str, Any] | str) -> bytes:
    lines = (each if isinstance(each, str) else json.dumps(each) for each in records)
    return "".join(line + "\n" for line in lines).encode()


# --- add, get, delete ---------------------------------------------------------------------------


def test_add_prints_the_id_under_which_get_finds_the_memory(cli: Cli) -> None:
    added = cli("add", "Prefers window seats", "--user-id", "ada")
    assert added.code == 0
    found = cli("get", added.out.strip(), "--json").json
    assert found["missing"] == []
    assert found["memories"][0]["text"] == "Prefers window seats"
    assert found["memories"][0]["user_id"] == "ada"


def test_add_can_set_every_field_of_a_record_that_is_not_derived(cli: Cli) -> None:
    record = MemoryRecord(
        id="-1 | ' \" \\ {}",
        text="-- a text, with\nnewlines",
        session_id="s",
        user_id="ü",
        namespace="n",
        memory_type=library.MemoryTypeEnum.EPISODIC,
        topics=["b", "a", "a"],
        entities=["x,y"],
        extracted_from=["1", "2"],
        metadata={"a": [1, None, {"b": "ü"}]},
        event_date=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        created_at=datetime(2026, 2, 3, tzinfo=UTC),
        last_accessed=datetime(2026, 3, 4, tzinfo=UTC),
        updated_at=datetime(2026, 4, 5, tzinfo=UTC),
        persisted_at=datetime(2026, 5, 6, tzinfo=UTC),
        pinned=True,
        access_count=7,
        discrete_memory_extracted="t",
        extraction_strategy="summary",
        extraction_strategy_config={"words": 10},
    )
    arguments = []
    for name, value in record.model_dump(mode="json", exclude={"text", "memory_hash"}).items():
        option = "--" + name.replace("_", "-")
        if value is True:
            arguments.append(option)
        elif isinstance(value, list):
            arguments += [f"{option}={each}" for each in value]
        else:
            arguments.append(f"{option}={json.dumps(value) if isinstance(value, dict) else value}")
    assert cli("add", *arguments, "--json", "--", record.text).json == {"id": record.id}

    (stored,) = cli("get", "--json", "--", record.id).json["memories"]
    assert stored == record.model_dump(mode="json") | {"memory_hash": record.compute_hash()}


def test_add_reads_a_text_from_stdin(cli: Cli) -> None:
    memory_id = cli("add", "-", stdin="größer\nals gedacht\n".encode()).out.strip()
    assert cli("get", memory_id, "--json").json["memories"][0]["text"] == "größer\nals gedacht"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([" "], "text: the text is blank"),
        (["x", "--access-count", "-1"], "access_count: Input should be greater than or equal to 0"),
        (["x", "--user-id", ""], "user_id: "),
        (["x", "--created-at", "yesterday"], "created_at: "),
        (["x", "--metadata", "{"], "--metadata: not JSON: "),
        (["x", "--metadata", "[1]"], "metadata: "),
    ],
)
def test_add_refuses_what_no_memory_can_have(cli: Cli, arguments: list[str], message: str) -> None:
    refused = cli("add", *arguments)
    assert refused.code == 2
    assert message in refused.err
    assert cli("count").out == "0\n"


def test_get_prints_every_field_that_has_a_value_and_reports_what_is_missing(cli: Cli) -> None:
    cli("add", "first line\nsecond line", "--id", "1", "--topics", "a", "--topics", "b")
    found = cli("get", "1", "2", "3")
    assert found.code == 1
    assert "first line\n" in found.out
    assert '["a", "b"]' in found.out
    assert "user_id" not in found.out
    assert found.err == "Error: no memory has the id '2'\nError: no memory has the id '3'\n"

    as_json = cli("get", "2", "1", "2", "--json")
    assert as_json.code == 1
    assert [each["id"] for each in as_json.json["memories"]] == ["1"]
    assert as_json.json["missing"] == ["2"]


def test_delete_counts_the_memories_there_were(cli: Cli) -> None:
    for each in "123":
        cli("add", f"number {each}", "--id", each)
    assert cli("delete", "1", "1", "9").out == "1 deleted.\n"
    assert cli("delete", "2", "9", "--json").json == {"deleted": 1}
    assert cli("count", "--json").json == {"count": 1}


# --- import and export --------------------------------------------------------------------------


def test_import_reports_bad_lines_with_number_and_reason_and_stores_the_rest(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "some.jsonl").write_bytes(
        b"\xef\xbb\xbf"
        + lines_of(
            {"id": "1", "text": "good"},
            {"id": "2", "text": "", "user_idd": "ada"},
            "",
            "   ",
            '{"id": "3"',
            "[1]",
            {"id": "4", "text": "\x1b[31mred", "created_at": 1},
        )
        + b'{"id": "5", "text": "\xff"}\r\n'
        + '{"id": "6", "text": "one\u2028line"}'.encode()
    )
    imported = cli("import", "some.jsonl")
    assert imported.code == 1
    reported = imported.err.splitlines()
    assert reported[0] == "line 2: text: the text is blank; user_idd: no such field"
    assert reported[1].startswith("line 5: Invalid JSON: EOF while parsing an object at column ")
    assert reported[2].startswith("line 6: ")
    assert reported[3].startswith("line 7: created_at: ")
    assert reported[4].startswith("line 8: Invalid JSON: ")
    assert reported[5:] == ["2 imported, 5 bad lines left out."]
    assert [each["id"] for each in cli("list", "--json").json["memories"]] == ["6", "1"]


def test_import_reports_as_json_and_says_nothing_else(cli: Cli) -> None:
    stdin = lines_of({"id": "1", "text": "a"}, {"id": "1", "text": "b"}, "null")
    imported = cli("import", "-", "--json", stdin=stdin)
    assert (imported.code, imported.err) == (1, "")
    assert imported.json == {
        "imported": 2,
        "repeated": 1,
        "failed": 1,
        "bad_lines": [{"line": 3, "reason": "Input should be an object"}],
        "interrupted": False,
    }


def test_import_counts_all_bad_lines_and_shows_the_first_hundred(cli: Cli) -> None:
    imported = cli("import", "-", stdin=b"x\n" * 150)
    assert len(imported.err.splitlines()) == 101
    assert imported.err.splitlines()[-1] == "0 imported, 150 bad lines left out."


@pytest.mark.parametrize("batch_size", ["1", "2", "500"])
def test_of_an_id_twice_in_a_file_the_last_counts(cli: Cli, batch_size: str) -> None:
    stdin = lines_of(
        {"id": "1", "text": "old"}, {"id": "2", "text": "other"}, {"id": "1", "text": "new"}
    )
    imported = cli("import", "-", "--batch-size", batch_size, stdin=stdin)
    assert imported.code == 0
    assert imported.err == ("3 imported, 1 of them replaced an earlier line with the same id.\n")
    assert cli("get", "1", "--json").json["memories"][0]["text"] == "new"
    assert cli("count").out == "2\n"


def test_strict_import_writes_nothing_if_one_line_is_bad(cli: Cli) -> None:
    good = lines_of({"id": "1", "text": "good"}) * 600
    refused = cli("import", "-", "--strict", stdin=good + b"{}\n")
    assert refused.code == 1
    assert refused.err.splitlines() == [
        "line 601: id: Field required; text: Field required",
        "Nothing was written: 1 bad line.",
    ]
    assert cli("count").out == "0\n"
    assert cli("import", "-", "--strict", stdin=good).code == 0
    assert cli("count").out == "1\n"


def test_an_import_that_the_backend_stops_names_the_lines_and_keeps_what_was_stored(
    cli: Cli, failing_backend: str
) -> None:
    stdin = lines_of(
        *({"id": str(number), "text": f"number {number}"} for number in range(1, 5)),
        {"id": "5", "text": "unlucky"},
    )
    stopped = cli("import", "-", "--batch-size", "2", "-b", failing_backend, stdin=stdin)
    assert stopped.code == 1
    assert stopped.err == (
        "4 imported.\n"
        "Error: the service is gone\n"
        "This stopped the import at the lines 5 to 5; a smaller --batch-size narrows it down.\n"
    )
    assert cli("count").out == "4\n"

    as_json = cli("import", "-", "-b", failing_backend, "--json", stdin=stdin)
    assert as_json.json["imported"] == 0
    assert json.loads(as_json.err)["error"]["type"] == "EmbeddingError"


def test_a_file_that_does_not_exist_is_a_wrong_command_line(cli: Cli) -> None:
    assert cli("import", "missing.jsonl").code == 2


def test_an_export_holds_every_record_as_it_was_stored_newest_first(cli: Cli) -> None:
    cli("import", str(SAMPLE))
    exported = cli("export")
    assert (exported.code, exported.err) == (0, "")
    records = [MemoryRecord.model_validate_json(each) for each in exported.out.splitlines()]
    imported = [MemoryRecord.model_validate_json(each) for each in SAMPLE.read_bytes().splitlines()]
    for each in imported:
        each.memory_hash = each.compute_hash()
    assert records == sorted(
        sorted(imported, key=lambda each: each.id), key=lambda each: each.created_at, reverse=True
    )


def test_an_export_takes_filters(cli: Cli) -> None:
    cli("import", str(SAMPLE))
    exported = cli("export", "--user-id", "ada", "--filter", "topics.any=running")
    ids = [json.loads(each)["id"] for each in exported.out.splitlines()]
    assert ids
    assert ids == [
        each["id"]
        for each in cli(
            "list", "--user-id", "ada", "--topics", "running", "--limit", "99", "--json"
        ).json["memories"]
    ]


def test_an_export_replaces_its_file_and_leaves_no_draft(cli: Cli, tmp_path: Path) -> None:
    cli("add", "x", "--id", "1")
    folder = tmp_path / "folder"
    folder.mkdir()
    real = folder / "real.jsonl"
    real.write_text("old")
    real.chmod(0o640)
    link = folder / "link.jsonl"
    link.symlink_to("real.jsonl")

    exported = cli("export", str(link))

    assert exported.code == 0
    assert exported.err == f"1 exported to {link}.\n"
    assert json.loads(real.read_text())["id"] == "1"
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(folder.iterdir()) == [link, real]


def test_an_export_that_fails_leaves_the_file_as_it_was(cli: Cli, tmp_path: Path) -> None:
    cli("add", "x")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "backup.jsonl").write_text("precious")
    failed = cli("export", str(folder / "backup.jsonl"), "--option", "metric=l2")
    assert failed.code == 1
    assert [each.read_text() for each in folder.iterdir()] == ["precious"]


# --- search, list, count ------------------------------------------------------------------------


def page_data(page: library.MemoryRecordResults) -> Any:
    return json.loads(page.model_dump_json())


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {}),
        (["--limit", "3"], {"limit": 3}),
        (["--limit", "3", "--offset", "4"], {"limit": 3, "offset": 4}),
        (["--threshold", "0.75"], {"distance_threshold": 0.75}),
        (["--mode", "semantic", "--user-id", "ada"], {"user_id": "ada"}),
        (["--mode", "keyword"], {"search_mode": "keyword"}),
        (["--mode", "hybrid", "--alpha", "0.2"], {"search_mode": "hybrid", "hybrid_alpha": 0.2}),
        (["--no-total"], {"with_total": False}),
        (
            ["--recency-param", "now=2026-07-01", "--recency-param", "recency_weight=2"],
            {
                "recency": library.RecencyParams(
                    now=datetime(2026, 7, 1, tzinfo=UTC), recency_weight=2
                )
            },
        ),
    ],
)
def test_search_gives_what_the_database_gives(
    cli: Cli, options: list[str], arguments: dict[str, Any]
) -> None:
    cli("import", str(SAMPLE))
    query = "what does she like on trains and planes?"
    expected = on_database(lambda db: db.search_memories(query, **arguments))
    assert cli("search", query, *options, "--json").json == page_data(expected)


def test_recency_alone_ranks_as_the_database_does_by_default(cli: Cli) -> None:
    cli("import", str(SAMPLE))
    query = "how much does she charge a day?"
    expected = on_database(
        lambda db: db.search_memories(query, user_id="emi", recency=library.RecencyParams())
    )
    found = cli("search", query, "--user-id", "emi", "--recency", "--json").json
    assert [each["id"] for each in found["memories"]] == [each.id for each in expected.memories]


def test_search_prints_a_table_whose_columns_line_up(cli: Cli) -> None:
    cli("import", str(SAMPLE))
    heading, _, *rows, summary = cli("search", "window seat", "--limit", "4").out.splitlines()
    assert heading.split() == ["score", "id", "user", "created", "text"]
    starts = [heading.index(name) for name in ("id", "user", "created", "text")]
    for row in rows:
        assert len(row) <= 100
        assert all(row[start - 1] == " " for start in starts)
    assert sum(row[0] != " " for row in rows) == 4
    assert summary == "1 to 4 of 300; next page: --offset 4"


def test_list_is_in_order_and_says_where_the_next_page_starts(cli: Cli) -> None:
    cli("import", str(SAMPLE))
    expected = on_database(lambda db: db.list_memories(limit=5, offset=295))
    assert cli("list", "--limit", "5", "--offset", "295", "--json").json == page_data(expected)
    assert cli("list").out.splitlines()[-1] == "1 to 20 of 300; next page: --offset 20"
    assert cli("list", "--offset", "298").out.splitlines()[-1] == "299 to 300 of 300"
    assert cli("list", "--offset", "300").out == (
        "No memories from offset 300 on; there are 300.\n"
    )
    assert cli("list", "--user-id", "nobody").out == "No memories found.\n"
    assert cli("search", "x", "--no-total", "--limit", "2").out.splitlines()[-1] == (
        "1 to 2; next page: --offset 2"
    )


def test_nothing_that_is_stored_can_act_on_the_terminal(cli: Cli) -> None:
    cli("add", "\x1b[2Jgone \u202eback\x07 [bold]not markup[/bold] :smile:", "--id", "\x1b]0;t\x07")
    for shown in (cli("list").out, cli("get", "--", "\x1b]0;t\x07").out):
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\u202e" not in shown
        assert "\\x1b]0;t\\x07" in shown
        assert "[bold]not markup[/bold] :smile:" in shown


def test_a_long_text_is_shortened_to_one_line() -> None:
    assert shortened("a\n b\t c", 10) == "a b c"
    assert shortened("word " * 100, 12) == "word word w…"
    assert visible("\ud800\x9b\n") == "\\ud800\\x9b\\n"


# --- options that all commands share ------------------------------------------------------------


def test_spaces_are_apart(cli: Cli) -> None:
    cli("add", "x", "--space", "one")
    assert cli("count", "--space", "one").out == "1\n"
    assert cli("count").out == "0\n"


def test_options_win_over_the_environment(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_VECTOR_DB_FACTORY", "no_such")
    monkeypatch.setenv("EMBEDDING_MODEL", "no-such")
    monkeypatch.delenv("AGENT_MEMORY_INMEMORY_PATH")
    where = ["-b", "inmemory", "-e", "local", "--path", str(tmp_path / "elsewhere")]
    assert cli("add", "x", *where).code == 0
    assert cli("count", *where).out == "1\n"


def test_option_passes_text_and_json_to_the_factory(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "curious_backend.py").write_text(
        "def create(embeddings, **options):\n    raise ValueError(sorted(options.items()))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    shown = cli(
        *("count", "-b", "curious_backend.create", "--space", "s"),
        *("--option", "a=1=2", "--option", "b:=1", "--option", 'c:=[null, "x"]'),
    )
    assert "[('a', '1=2'), ('b', 1), ('c', [None, 'x']), ('space', 's')]" in shown.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["add", "x"],
        ["import", "-"],
        ["export"],
        ["search", "x"],
        ["list"],
        ["get", "1"],
        ["count"],
        ["delete", "1"],
    ],
)
def test_a_backend_that_forgets_is_refused_with_the_way_out(
    cli: Cli, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AGENT_MEMORY_INMEMORY_PATH")
    refused = cli(*arguments)
    assert (refused.code, refused.out) == (2, "")
    assert "'inmemory' does not say that it keeps its data" in refused.err
    assert "--path DIRECTORY or set AGENT_MEMORY_INMEMORY_PATH" in refused.err


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--limit", "0"], "0 is not in the range x>=1"),
        (["list", "--offset", "-1"], "-1 is not in the range x>=0"),
        (["search", "  "], "query: it is blank"),
        (["search", "x", "--mode", "fuzzy"], "'fuzzy' is not one of"),
        (["search", "x", "--alpha", "0.5"], "hybrid_alpha belongs to hybrid search"),
        (["search", "x", "--mode", "hybrid", "--alpha", "2"], "expected a number from 0 to 1"),
        (["search", "x", "--threshold", "nan"], "expected a finite number"),
        (["search", "x", "--recency-param", "now"], "expected NAME=VALUE"),
        (["search", "x", "--recency-param", "then=1"], "then: no such field"),
        (["search", "x", "--recency-param", "candidates=0"], "candidates: Input should be"),
        (["count", "--option", "metric"], "expected KEY=VALUE or KEY:=JSON"),
        (["count", "--option", "metric:=cosine"], "the value is not JSON"),
        (["count", "--option", "space=a", "--space", "b"], "space is given twice"),
        (["count", "--option", "embeddings=local"], "use --backend and --embeddings"),
        (["count", "--option", "metric=angle"], "metric='angle': expected one of"),
        (["get"], "Missing argument"),
        (["lst"], "No such command"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    cli: Cli, arguments: list[str], message: str
) -> None:
    refused = cli(*arguments)
    assert (refused.code, refused.out) == (2, "")
    assert message in refused.err
    assert "Traceback" not in refused.err


def test_an_error_is_one_message_and_with_debug_a_traceback_too(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = cli("count", "-b", "no_such")
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.startswith("Error: no installed distribution registers the backend 'no_such'")
    assert len(failed.err.splitlines()) == 1

    assert "Traceback" in cli("count", "-b", "no_such", "--debug").err
    monkeypatch.setenv("AGENT_MEMORY_DEBUG", "1")
    assert "Traceback" in cli("count", "-b", "no_such").err


def test_with_json_an_error_is_a_json_object_on_stderr(cli: Cli) -> None:
    failed = cli("count", "-b", "no_such", "--json")
    assert (failed.code, failed.out) == (1, "")
    error = json.loads(failed.err)["error"]
    assert error["type"] == "BackendNotFoundError"
    assert "'no_such'" in error["message"]


def test_an_error_that_is_none_of_ours_names_its_type_and_keeps_its_notes(
    cli: Cli, failing_backend: str
) -> None:
    failed = cli("count", "-b", failing_backend.replace("create", "broken"))
    assert failed.code == 1
    first, *notes = failed.err.splitlines()
    assert first == "Error: KeyError: 'port' (--debug shows where)"
    assert "failing_backend.broken" in notes[0]


# --- help ---------------------------------------------------------------------------------------


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            assert isinstance(command, Command)
            yield (*path, name), command


ALL_COMMANDS = dict(commands(agent_memory))


def test_the_commands_are_those_that_are_promised() -> None:
    assert {" ".join(path) for path in ALL_COMMANDS} == {
        *("add", "import", "export", "search", "list", "get", "count", "delete", "demo"),
        *("backends list", "backends doctor", "hooks list", "new-backend"),
    }


def test_help_names_the_exit_codes(cli: Cli) -> None:
    assert "Exit codes: 0 done; 1 failed" in cli("--help").out


@pytest.mark.parametrize("path", ALL_COMMANDS, ids=" ".join)
def test_help_ends_in_examples_that_are_valid_command_lines(
    cli: Cli, path: tuple[str, ...], tmp_path: Path
) -> None:
    shown = cli(*path, "--help")
    assert shown.code == 0
    assert max(map(len, shown.out.splitlines())) <= 100
    _, _, examples = shown.out.partition("Examples:\n")
    for name in ("memories.jsonl", "note.txt"):
        (tmp_path / name).touch()
    lines = list(_command_lines(examples))
    assert lines
    assert path in {line[: len(path)] for line in lines}
    for line in lines:
        known = next(each for each in ALL_COMMANDS if line[: len(each)] == each)
        ALL_COMMANDS[known].make_context("example", list(line[len(known) :])).close()


def _command_lines(examples: str) -> Iterator[tuple[str, ...]]:
    """Yield what the shell would pass to each ``agent-memory`` of the examples."""
    for line in examples.splitlines():
        tokens = shlex.split(line)
        while tokens:
            end = tokens.index("|") if "|" in tokens else len(tokens)
            script, *arguments = tokens[:end]
            if script == "agent-memory":
                redirected = arguments.index("<") if "<" in arguments else len(arguments)
                yield tuple(arguments[:redirected])
            tokens = tokens[end + 1 :]


# --- demo ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lesson", demo.LESSONS, ids=lambda lesson: lesson.title)
def test_what_the_demonstration_prints_finds_what_it_shows(
    cli: Cli, lesson: demo.Lesson, tmp_path: Path
) -> None:
    path = tmp_path / "kept"
    shown = cli("demo", "--path", str(path))
    assert shown.code == 0

    _, *command = shlex.split(lesson.command.replace("\\\n", ""))
    by_command = cli(*command, "--json", "--path", str(path)).json["memories"]
    ids = [each["id"] for each in by_command]
    assert len(ids) > 0
    for each in ids:
        assert each in shown.out

    names: dict[str, Any] = {**vars(library), "datetime": datetime}
    exec(f"async def call(db):\n    return {lesson.call}", names)
    by_call = on_database(names["call"], path=path)
    assert [each.id for each in by_call.memories] == ids


def test_the_demonstration_teaches_what_it_says(cli: Cli) -> None:
    shown = cli("demo").out
    meaning, filtered, words, recency = (shown.split(f"{number}. ")[1] for number in range(1, 5))
    assert "cello" in meaning
    assert "dev-036" in filtered
    assert "Without the filter, first is ada-003" in filtered
    assert "emi-052" in words
    assert "By meaning, first is emi-011" in words
    assert recency.index("emi-054") < recency.index("emi-003")
    assert "Without recency, first is emi-003" in recency


def test_the_demonstration_may_be_repeated_but_mixes_with_nothing(cli: Cli, tmp_path: Path) -> None:
    for _ in range(2):
        assert cli("demo", "-b", "inmemory").code == 0
    assert cli("count").out == "300\n"
    cli("add", "mine")
    refused = cli("demo", "-b", "inmemory")
    assert (refused.code, refused.out) == (1, "")
    assert "already holds 1 memories that are not samples" in refused.err
