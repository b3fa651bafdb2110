"""Where a space lies on disk: a file of its own, whatever its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_memory import InvalidArgumentError
from agent_memory_inmemory.files import space_file

FOLDER = Path("folder")
names = st.text(min_size=1, max_size=20) | st.text("aA%6.1/-_~", min_size=1, max_size=6)


@given(names, names)
def test_different_spaces_have_different_files_also_where_case_does_not_count(
    one: str, other: str
) -> None:
    files = [str(space_file(FOLDER, each)).casefold() for each in (one, other)]
    assert (files[0] == files[1]) == (one == other)


@given(st.text("aA%6.é", min_size=1, max_size=6))
def test_a_space_named_like_the_file_of_another_has_a_file_of_its_own(space: str) -> None:
    file = space_file(FOLDER, space)
    if file.stem != space:
        assert space_file(FOLDER, file.stem) != file


@given(names)
def test_the_file_lies_in_the_folder_under_a_plain_name(space: str) -> None:
    file = space_file(FOLDER, space)
    assert file.parent == FOLDER
    assert file.suffixes == [".sqlite3"]
    assert file.name.isascii()
    assert set(file.stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_%")


def test_a_plain_name_stays_as_it_is() -> None:
    assert space_file(FOLDER, "team-1_a") == FOLDER / "team-1_a.sqlite3"


def test_a_name_of_200_characters_is_the_longest() -> None:
    assert space_file(FOLDER, "a" * 200).stem == "a" * 200
    assert space_file(FOLDER, "é" * 33).stem == "%c3%a9" * 33
    for long in ("a" * 201, "é" * 34):
        with pytest.raises(InvalidArgumentError, match="200 are possible"):
            space_file(FOLDER, long)
