"""A run that was broken off goes on, and a journal of another run is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ventris.bench.structured.journal import Journal
from ventris.engine.errors import BadInput

ABOUT = {"protocol": "mask", "seed": 0}


def test_results_come_back_and_a_broken_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    first = Journal(str(path), ABOUT)
    first.add({"name": "a"})
    first.add({"name": "b"})
    with path.open("a") as file:
        file.write('{"name": "c", "compi')
    second = Journal(str(path), ABOUT)
    assert second.results == [{"name": "a"}, {"name": "b"}]
    second.add({"name": "c"})
    assert Journal(str(path), ABOUT).results == [{"name": "a"}, {"name": "b"}, {"name": "c"}]


def test_without_a_file_nothing_is_kept() -> None:
    assert Journal(None, ABOUT).results == []


@pytest.mark.parametrize(
    ("text", "said"), [('{"protocol": "suite"}\n', "another run"), ("not json\n", "no journal")]
)
def test_other_files_are_refused_and_left_alone(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        Journal(str(path), ABOUT)
    assert path.read_text() == text


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="journal"):
        Journal(str(tmp_path / "file" / "run.jsonl"), ABOUT)
