"""Parts by name: one grammar for strings, mappings and YAML; errors in one line."""

from __future__ import annotations

import pytest
import yaml

from ventris.draft import DraftModel, NGram, Stack
from ventris.engine.errors import BadInput, Incompatible
from ventris.model import check_settings
from ventris.options import read_generation_options
from ventris.parts import (
    PartSpec,
    Workshop,
    available,
    build_drafter,
    build_one,
    options_of,
    parse,
    part_class,
)
from ventris.verify import Synthetic

PREVIEW = Workshop()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("ngram", [PartSpec("ngram")]),
        ("ngram:width=2", [PartSpec("ngram", {"width": "2"})]),
        ("ngram:width=2,max_depth=3", [PartSpec("ngram", {"width": "2", "max_depth": "3"})]),
        ("ngram:width=2,model:folder/x.gguf,depth=3",
         [PartSpec("ngram", {"width": "2"}), PartSpec("model", {"": "folder/x.gguf", "depth": "3"})]),
        ({"ngram": {"width": 2}}, [PartSpec("ngram", {"width": 2})]),
        ({"ngram": None, "model": {"model": "x"}}, [PartSpec("ngram"), PartSpec("model", {"model": "x"})]),
        (["ngram", {"model": {"model": "x"}}], [PartSpec("ngram"), PartSpec("model", {"model": "x"})]),
        ('schema:{"a": [1, 2]},ngram', [PartSpec("schema", {"": '{"a": [1, 2]}'}), PartSpec("ngram")]),
        (yaml.safe_load("ngram: {width: 2}"), [PartSpec("ngram", {"width": 2})]),
    ],
)  # fmt: skip
def test_one_grammar(spec, expected) -> None:
    assert parse(spec) == expected


def test_strings_and_mappings_build_the_same_part() -> None:
    first = build_drafter("ngram:width=1,max_nodes=4", PREVIEW)
    second = build_drafter({"ngram": {"width": 1, "max_nodes": 4}}, PREVIEW)
    assert isinstance(first, NGram)
    assert vars(first) == vars(second)
    assert first.shape == "chain"


def test_several_drafters_stack_by_priority() -> None:
    stack = build_drafter("ngram,model:some-model", PREVIEW)
    assert isinstance(stack, Stack)
    assert [type(part) for part in stack.drafters] == [NGram, DraftModel]
    assert stack.draws


def test_nothing_means_no_drafter() -> None:
    assert build_drafter(None, PREVIEW) is None
    assert build_drafter("none", PREVIEW) is None


def test_the_first_option_needs_no_name() -> None:
    verifier = build_one("verifier", "synthetic:0.25", PREVIEW)
    assert isinstance(verifier, Synthetic)
    assert verifier.rate == 0.25


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("verifier", "gredy", "did you mean 'greedy'"),
        ("verifier", "greedy:x=1", "no option 'x'"),
        ("verifier", "synthetic:rate=2", "option 'rate'"),
        ("verifier", "synthetic:rate=often", "option 'rate'"),
        ("verifier", "greedy,coupled", "exactly one verifier"),
        ("verifier", "greedy:1", "takes no options"),
        ("policy", "=3", "cannot read"),
        ("policy", ",", "empty"),
        ("drafter", "ngram,,ngram", "'ngram,,ngram' has an empty piece"),
        ("drafter", "ngram,", "has an empty piece"),
        ("drafter", " ", "a part specification is empty"),
    ],
)
def test_mistakes_are_named_in_one_line(kind: str, spec: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        build_one(kind, spec, PREVIEW)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["drafter", "verifier", "guide", "policy"])
def test_every_part_has_a_name_docs_and_described_options(kind: str) -> None:
    for name in available(kind):
        part = part_class(kind, name)
        assert part.name == name
        assert part.__doc__
        for option in options_of(part).model_fields.values():
            assert option.description, (name, option)


def test_plugins_register_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    import ventris.parts

    point = EntryPoint("mine", "ventris.draft.ngram:NGram", "ventris.drafters")
    broken = EntryPoint("broken", "no.such.module:Part", "ventris.drafters")
    monkeypatch.setattr(
        ventris.parts, "entry_points", lambda group: [point, broken] if group == "ventris.drafters" else []
    )
    available.cache_clear()
    try:
        assert isinstance(build_drafter("mine:width=2", PREVIEW), NGram)
        with pytest.raises(BadInput, match=r"'broken' cannot be loaded from no\.such\.module:Part"):
            build_drafter("broken", PREVIEW)
    finally:
        available.cache_clear()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"verifier": "greedy", "temperature": 0.7}, "'greedy' cannot be combined with temperature 0.7"),
        ({"verifier": "block", "draft": "ngram"}, "'block' cannot be combined with drafter 'ngram'"),
    ],
)
def test_incompatible_parts_are_refused_before_any_model_loads(settings: dict, message: str) -> None:
    with pytest.raises(Incompatible, match=message):
        check_settings(read_generation_options(settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"temperature": "warm"}, "temperature"),
        ({"tempreature": 1}, "no setting 'tempreature'"),
        ({"top_p": 0}, "top_p"),
    ],
)
def test_settings_are_checked_in_one_line(settings: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read_generation_options(settings)
    assert "\n" not in str(caught.value)
