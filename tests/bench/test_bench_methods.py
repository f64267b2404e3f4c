from __future__ import annotations

from pathlib import Path

import pytest

from ventris.bench import Method, parse_method, parse_methods
from ventris.engine.errors import BadInput


@pytest.mark.parametrize(
    ("spec", "method"),
    [
        ("autoregressive", Method("autoregressive")),
        ("ngram", Method("ngram", "ngram")),
        ("ngram@fixed", Method("ngram@fixed", "ngram", "fixed")),
        ("ngram | coupled", Method("ngram|coupled", "ngram", None, "coupled")),
        (
            "mine = ngram:width=1,min_match=2 @ fixed:nodes=5 | greedy",
            Method("mine", "ngram:width=1,min_match=2", "fixed:nodes=5", "greedy"),
        ),
        ({"draft": "ngram", "policy": "fixed"}, Method("ngram@fixed", "ngram", "fixed")),
        ({"name": "a", "draft": {"ngram": {"width": 1}}}, Method("a", {"ngram": {"width": 1}})),
        ('{"name": "b", "draft": "ngram", "verifier": "greedy"}', Method("b", "ngram", None, "greedy")),
    ],
)
def test_grammar(spec: object, method: Method) -> None:
    assert parse_method(spec) == method  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "@fixed",
        "ngram@",
        "ngram@fixed@goodput",
        "ngram|greedy|coupled",
        "name =",
        "=ngram",
        "{name: [",
        {"draft": "ngram", "drafter": "x"},
        {"name": 3},
        7,
    ],
)
def test_mistakes_are_bad_input_in_one_line(spec: object) -> None:
    with pytest.raises(BadInput) as caught:
        parse_method(spec)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_plain_decoding_comes_first_even_if_nobody_asked() -> None:
    assert [method.name for method in parse_methods(["ngram"])] == ["autoregressive", "ngram"]
    assert parse_methods(["ngram", "autoregressive"])[0].name == "autoregressive"


def test_two_methods_of_one_name_are_refused() -> None:
    with pytest.raises(BadInput, match="two methods are called 'ngram'"):
        parse_methods(["ngram", "ngram"])


def test_the_name_of_the_baseline_cannot_be_taken() -> None:
    with pytest.raises(BadInput, match="baseline"):
        parse_methods(["autoregressive = ngram"])


def test_a_file_of_methods(tmp_path: Path) -> None:
    file = tmp_path / "methods.yaml"
    file.write_text("- ngram\n- {name: short, draft: 'ngram:max_depth=2', policy: fixed}\n")
    names = [method.name for method in parse_methods([str(file)])]
    assert names == ["autoregressive", "ngram", "short"]
    with pytest.raises(BadInput, match="cannot read the methods"):
        parse_methods([str(tmp_path / "none.yaml")])
