"""Reading schemas with instances, and choosing some of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ventris.bench.structured.cases import Case, read_cases, stratified
from ventris.bench.structured.suite import read_suite
from ventris.engine.errors import BadInput


def case(name: str) -> Case:
    return Case.model_validate({"name": name, "schema": True})


def test_a_packed_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl.gz"
    line = {
        "name": "Easy---1",
        "schema": {"type": "null"},
        "tests": [{"data": None, "valid": True}],
        "meta": {},
    }
    path.write_bytes(gzip.compress((json.dumps(line) + "\n").encode()))
    (found,) = read_cases(path)
    assert (found.source, found.json_schema, found.tests[0].valid) == ("Easy", {"type": "null"}, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no schemas"),
        ("{", "line 1 of bad.jsonl is no JSON"),
        ('{"name": "a"}', "line 1 of bad.jsonl: schema"),
        ('\n{"name": "a", "schema": 3}', "line 2 of bad.jsonl: schema"),
        ('{"name": "a", "schema": true}\n{"name": "a", "schema": true}', "two schemas with the name 'a'"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(BadInput, match=said) as refused:
        read_cases(path)
    assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match="cannot read"):
        read_cases(tmp_path / "none.jsonl")


def test_every_source_has_its_turn() -> None:
    cases = [case(f"Many---{i}") for i in range(50)] + [case("Few---1"), case("Few---2"), case("JME_3")]
    chosen = stratified(cases, 6, seed=0)
    assert [one.source for one in chosen] == ["Few", "JME", "Many", "Few", "Many", "Many"]
    assert chosen == stratified(cases, 6, seed=0)
    assert {one.name for one in chosen} != {one.name for one in stratified(cases, 6, seed=1)}
    assert stratified(cases, None, seed=0) == cases


GROUPS = [
    {"description": "a", "schema": {"minimum": 1}, "tests": [{"description": "x", "data": 1, "valid": True}]}
] * 2


def test_the_suite_is_read_packed_and_as_it_is_checked_out(tmp_path: Path) -> None:
    packed, plain = tmp_path / "packed", tmp_path / "plain"
    packed.mkdir()
    (packed / "draft7.json.gz").write_bytes(gzip.compress(json.dumps({"optional/a.json": GROUPS}).encode()))
    (plain / "tests" / "draft7" / "optional").mkdir(parents=True)
    (plain / "tests" / "draft7" / "optional" / "a.json").write_text(json.dumps(GROUPS))
    cases = read_suite(str(packed))
    assert cases == read_suite(str(plain))
    assert [one.name for one in cases] == ["draft7/optional/a.json: a", "draft7/optional/a.json: a (2)"]
    assert cases[0].json_schema == {"$schema": "http://json-schema.org/draft-07/schema#", "minimum": 1}
    assert cases[0].source == "draft7/optional/a.json"


def test_a_folder_without_tests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no tests"):
        read_suite(str(tmp_path))
    with pytest.raises(BadInput, match="--data"):
        read_suite(None)
