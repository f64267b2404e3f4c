"""The registry of papers: its data, its lookups and the way to a reproduction."""

import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from pydantic import ValidationError

from ventris.papers import (
    GROUPS,
    InconsistentRegistry,
    NotYetBuilt,
    Paper,
    Reproduction,
    Row,
    UnknownPaper,
    paper,
    papers,
    registry,
    reproduce,
)
from ventris.papers.registry import read_registry
from ventris.papers.reproduction_table import REPRODUCTIONS

SOURCES = Path(__file__).resolve().parents[2].parent / "shared" / "papers"

ENTRY = {
    "slug": "example",
    "title": "An Example",
    "authors": "Doe et al.",
    "year": 2024,
    "arxiv": "2401.00001",
    "group": "guided",
    "state": "planned",
    "parts": ["guide: example"],
    "claim": "It is faster.",
    "claim_figure": "2x",
    "reproduction": "Speed with it over without.",
    "guarantee": "exact",
}


def text_of(*entries: dict[str, object]) -> str:
    return yaml.safe_dump(list(entries))


def raw_entries() -> list[dict[str, object]]:
    text = files("ventris.papers").joinpath("registry.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load(text))


# --- the data


@pytest.mark.parametrize("data", raw_entries(), ids=lambda data: str(data["slug"]))
def test_every_entry_validates_and_reads_well(data: dict[str, object]) -> None:
    entry = Paper.model_validate(data)
    assert len(re.findall(r"[.?!](?:\s|$)", entry.claim)) in (1, 2)
    for sentence in (entry.claim, entry.reproduction):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
    assert len(re.findall(r"[.?!](?:\s|$)", entry.reproduction)) == 1
    assert len(entry.claim) <= 330
    assert len(entry.claim_figure) <= 60
    words = " ".join((entry.title, entry.claim, entry.claim_figure, entry.reproduction)).lower()
    assert not re.search(r"\bsheets?\b|/work|/shared|\.md\b", words)


def test_slugs_are_unique_and_forty_four_with_one_beyond() -> None:
    slugs = [entry["slug"] for entry in raw_entries()]
    assert len(set(slugs)) == len(slugs)
    assert sum(not entry.beyond for entry in papers().values()) == 44
    assert [slug for slug, entry in papers().items() if entry.beyond] == ["eagle3"]


def test_papers_are_sorted_and_keyed_by_their_slug() -> None:
    assert list(papers()) == sorted(papers())
    assert all(entry.slug == slug for slug, entry in papers().items())


def test_every_group_is_used() -> None:
    assert {entry.group for entry in papers().values()} == set(GROUPS)


def test_no_two_papers_share_a_title_or_an_arxiv_number() -> None:
    entries = papers().values()
    titles = [entry.title for entry in entries]
    numbers = [entry.arxiv for entry in entries if entry.arxiv]
    assert len(set(titles)) == len(titles)
    assert len(set(numbers)) == len(numbers)


def test_every_paper_of_the_collection_has_an_entry_and_no_other_has() -> None:
    if not SOURCES.is_dir():
        pytest.skip(f"the collection of papers is not at hand: no folder {SOURCES}")
    assert {path.stem for path in SOURCES.glob("*.md")} == set(papers())


# --- what an entry refuses


@pytest.mark.parametrize(
    "wrong",
    [
        {"group": "other"},
        {"state": "works?"},
        {"guarantee": "mostly"},
        {"arxiv": 2401.00001},
        {"arxiv": "240.1"},
        {"year": 2023},
        {"parts": []},
        {"parts": ["medusa"]},
        {"parts": ["gadget: medusa"]},
        {"parts": ["guide: example", "guide: example"]},
        {"claim": ""},
        {"slug": "Not A Slug"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_wrong_entry_is_refused(wrong: dict[str, object]) -> None:
    Paper.model_validate(ENTRY)
    with pytest.raises(ValidationError):
        Paper.model_validate({**ENTRY, **wrong})


def test_an_entry_cannot_be_changed() -> None:
    entry = Paper.model_validate(ENTRY)
    with pytest.raises(ValidationError):
        entry.state = "works"


# --- consistency


def test_works_if_and_only_if_registered() -> None:
    works = {slug for slug, entry in papers().items() if entry.state == "works"}
    assert works == set(REPRODUCTIONS)


def test_a_paper_that_works_needs_a_reproduction() -> None:
    text = text_of({**ENTRY, "state": "works"})
    assert list(read_registry(text, {"example"})) == ["example"]
    with pytest.raises(InconsistentRegistry, match=r"without a reproduction: example"):
        read_registry(text, set())


@pytest.mark.parametrize("registered", ["example", "nowhere"])
def test_a_reproduction_needs_a_paper_that_works(registered: str) -> None:
    with pytest.raises(InconsistentRegistry, match=rf"no entry that works: {registered}"):
        read_registry(text_of(ENTRY), {registered})


def test_a_slug_given_twice_is_refused() -> None:
    with pytest.raises(InconsistentRegistry, match="two papers are called 'example'"):
        read_registry(text_of(ENTRY, ENTRY), set())


# --- lookups


def test_a_paper_is_found_by_its_slug() -> None:
    assert paper("medusa") is papers()["medusa"]


def test_the_dictionary_is_the_callers_own() -> None:
    papers().clear()
    assert paper("medusa").slug in papers()


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("medussa", "medusa"), ("Hydra", "hydra"), ("judge", "judge-decoding"), ("vlm", "covlm or flash-vlm")],
)
def test_an_unknown_slug_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UnknownPaper, match=rf"'{wrong}'.*\b{near}\b") as error:
        paper(wrong)
    assert isinstance(error.value, ValueError)


def test_an_unknown_slug_near_nothing_points_to_the_list() -> None:
    with pytest.raises(UnknownPaper, match="ventris papers"):
        paper("zzzzzzzzzzzz")


# --- reproductions


@pytest.mark.parametrize("slug", [str(data["slug"]) for data in raw_entries() if data["state"] == "planned"])
def test_a_planned_paper_is_not_yet_built_and_names_its_parts(slug: str) -> None:
    with pytest.raises(NotYetBuilt) as error:
        reproduce(slug)
    message = str(error.value)
    assert isinstance(error.value, RuntimeError)
    assert "\n" not in message
    assert slug in message
    assert all(part in message for part in paper(slug).parts)


def test_reproducing_an_unknown_paper_says_so() -> None:
    with pytest.raises(UnknownPaper):
        reproduce("medussa")


def sample(slug: str = "example") -> Reproduction:
    rows = [
        Row("tokens per step", 2.4, "tokens", baseline=1.0, error=0.2),
        Row("accuracy of head 1", 0.56, "share"),
    ]
    return Reproduction(slug, paper_figure="2x", ours=rows, seconds=1.5, notes=["one thread"])


def test_a_reproduction_round_trips() -> None:
    result = sample()
    assert Reproduction.from_dict(result.to_dict()) == result
    assert Reproduction.from_json(result.to_json()) == result
    assert result.to_dict()["ours"][0] == {
        "name": "tokens per step",
        "value": 2.4,
        "unit": "tokens",
        "baseline": 1.0,
        "error": 0.2,
    }


def test_a_figure_that_is_no_number_is_not_written() -> None:
    broken = Reproduction("example", "2x", [Row("ratio", float("nan"), "x")], seconds=0.0)
    with pytest.raises(ValueError, match="JSON"):
        broken.to_json()


@pytest.fixture
def working_example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A registry whose only paper works, by a function in a module made for the test."""
    module = ModuleType("example_reproduction")
    module.__dict__["run"] = lambda slug="example": sample(slug)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for slug in list(REPRODUCTIONS):
        monkeypatch.delitem(REPRODUCTIONS, slug)
    monkeypatch.setitem(REPRODUCTIONS, "example", "example_reproduction:run")
    monkeypatch.setattr(registry, "registry_text", lambda: text_of({**ENTRY, "state": "works"}))
    registry._entries.cache_clear()
    yield module
    registry._entries.cache_clear()


def test_a_registered_reproduction_is_run(working_example: ModuleType) -> None:
    assert reproduce("example") == sample()


def test_options_reach_the_function_and_its_answer_is_checked(working_example: ModuleType) -> None:
    working_example.__dict__["run"] = lambda **options: sample(options["answer"])
    assert reproduce("example", answer="example").slug == "example"
    with pytest.raises(TypeError, match="did not return a Reproduction of example"):
        reproduce("example", answer="another")


def test_a_malformed_path_is_refused(working_example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REPRODUCTIONS, "example", "example_reproduction")
    with pytest.raises(ValueError, match="module:function"):
        reproduce("example")
