"""xgrammar and outlines-core behind the same guides: the same contract, nothing dropped unseen."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ventris.bench.structured.back_ends import chosen
from ventris.bench.structured.cases import Case, read_cases
from ventris.bench.structured.mask import run_mask_case
from ventris.draft import DraftModel, NGram
from ventris.engine.errors import BadInput
from ventris.guide import Choice, Format, Grammar, HardGuide, Json, JsonSchema, Limits, Regex, ToolCalls
from ventris.guide.back_ends.choice import OUTLINES, XGRAMMAR, check_back_end, is_installed
from ventris.guide.back_ends.integers import integers
from ventris.guide.back_ends.language import Language
from ventris.testing import check_guide

from .test_composition import OTHERS, SCHEMA
from .test_contract import TwelveTokens
from .test_fuzz import refusal, schemas
from .tiny import PROMPT, TinyTarget, accepts, decode, tiny_tokenizer

BACK_ENDS = [
    pytest.param(name, marks=pytest.mark.skipif(not is_installed(name), reason=f"{name} is not installed"))
    for name in (XGRAMMAR, OUTLINES)
]
both = pytest.mark.parametrize("back_end", BACK_ENDS)
needs_xgrammar = pytest.mark.skipif(not is_installed(XGRAMMAR), reason="xgrammar is not installed")
needs_outlines = pytest.mark.skipif(not is_installed(OUTLINES), reason="outlines-core is not installed")

CLOSED = {"type": "object", "additionalProperties": False}


@both
def test_the_contract_holds(back_end: Any) -> None:
    tokenizer: Any = TwelveTokens()
    makers: list[Callable[[], HardGuide]] = [
        lambda: Regex("[ab1]*2?", backend=back_end),
        lambda: Regex("(abab12)+", backend=back_end),
        lambda: Choice(["ab1[ab", "abab", "b"], backend=back_end),
        lambda: JsonSchema({"type": "array", "items": {"enum": [1, 12, "ab"]}}, backend=back_end),
    ]
    if back_end == XGRAMMAR:
        makers.append(lambda: Json("array", backend=back_end))
        makers.append(lambda: Grammar('root ::= "a" root "b" | "1"', backend=back_end))
    for make in makers:
        # An expression that allows nothing but the empty text has no start for outlines-core.
        if not refusal(lambda make=make: make().bind(tokenizer)):
            check_guide(lambda make=make: make().bind(tokenizer))


@both
@pytest.mark.parametrize("setting", [{}, {"temperature": 1.0, "seed": 3}], ids=["greedy", "coupled"])
def test_same_ids_with_and_without_drafts_alone_and_in_a_batch(back_end: Any, setting: Any) -> None:
    makers: dict[str, Callable[[str], HardGuide]] = {
        "json-schema": lambda name: JsonSchema(SCHEMA, backend=name),
        "regex": lambda name: Regex("(red|12)( a)*(name: (true|ab)){1,3}", backend=name),
        "choice": lambda name: Choice(["red name", "red true", "12 ab"], backend=name),
    }
    for make in makers.values():
        guide = make(back_end).bind(tiny_tokenizer())
        alone = [decode([guide], prompts=[prompt], **setting)[0] for prompt in (PROMPT, *OTHERS)]
        # The same language has the same texts, whoever finds the masks; only forced text is split otherwise.
        assert all(done.valid == (done.finish_reason == "stop") for done in alone)
        for drafter in (
            None,
            NGram(),
            DraftModel(TinyTarget(blend=(9, 0.4))),
            DraftModel(TinyTarget(blend=(9, 0.4)), samples=3),
        ):
            for prompts in ([PROMPT], [PROMPT, *OTHERS]):
                done = decode([guide], drafter=drafter, prompts=prompts, **setting)
                assert [one.tokens for one in done] == [one.tokens for one in alone][: len(prompts)]


def own_cases() -> list[Case]:
    return list(read_cases(None))


REFUSED = {
    XGRAMMAR: {"format 'uri'", "format 'duration'", "format 'ipv6'"},
    OUTLINES: {"format 'uri'", "format 'duration'", "format 'ipv6'", "nests in itself", "compile_seconds"},
}
"""Causes for which schemas of our own are refused."""


@both
def test_no_verdict_on_our_own_schemas_is_wrong(back_end: Any) -> None:
    accepted = 0
    for case in own_cases():
        result = run_mask_case(case, back_end, tiny_tokenizer(), "compact")
        if result.status == "refused":
            assert any(cause in result.reason for cause in REFUSED[back_end]), result.reason
            continue
        accepted += 1
        assert not result.let_through, case.name
        assert not result.valid_rejected, case.name
        assert not result.stopped, case.name
    assert accepted >= (58 if back_end == XGRAMMAR else 40)


def check_random(schema: Any, seed: int, back_end: Any) -> None:
    guide = JsonSchema(schema, backend=back_end, limits=Limits(compile_seconds=5.0))
    if refused := refusal(lambda: guide.bind(tiny_tokenizer())):
        assert "\n" not in refused
        return
    guide = guide.bind(tiny_tokenizer())
    target, options = TinyTarget(seed=seed), {"tokens": 40, "temperature": 1.0, "seed": seed}
    done = decode([guide], target, may_fail=True, **options)[0]
    assert decode([guide], target, NGram(), may_fail=True, **options)[0].tokens == done.tokens
    if done.error is not None:
        assert "json-schema" in done.error
    elif done.finish_reason == "stop" or done.valid:
        valid = jsonschema.Draft202012Validator(schema).is_valid(json.loads(done.text))
        assert done.valid == valid
        assert valid or not guide.enforcement.enforced


@both
@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(schema=schemas(), seed=st.integers(0, 3))
def test_random_schemas_under_random_models(back_end: Any, schema: Any, seed: int) -> None:
    check_random(schema, seed, back_end)


@pytest.mark.long
@both
@settings(max_examples=1500, suppress_health_check=list(HealthCheck), deadline=None)
@given(schema=schemas(), seed=st.integers(0, 1000))
def test_many_random_schemas_under_random_models(back_end: Any, schema: Any, seed: int) -> None:
    check_random(schema, seed, back_end)


def matches(guide: HardGuide, texts: dict[str, bool]) -> None:
    assert {text: accepts(guide, text) for text in texts} == texts


@both
def test_a_shorter_alternative_does_not_hide_a_longer_one(back_end: Any) -> None:
    matches(Choice(["a", "ab"], backend=back_end), {"a": True, "ab": True, "b": False, "abb": False})
    matches(Regex("(a|ab)(b|1)?", backend=back_end), {"a": True, "abb": True, "ab1": True, "1": False})


@both
def test_what_the_converters_of_the_back_ends_get_wrong_is_right(back_end: Any) -> None:
    def schema(**rules: Any) -> JsonSchema:
        return JsonSchema(rules, backend=back_end)

    matches(
        schema(type="string", maxLength=2), {'"\\n"': True, '"\n"': False, '"é\\""': True, '"aaa"': False}
    )
    matches(
        schema(allOf=[{"type": "integer"}, {"minimum": 2}]), {"1": False, "2": True, "10": True, "2.5": False}
    )
    matches(schema(type="string", enum=["a", 1]), {'"a"': True, "1": False})
    matches(schema(type="number"), {"1e5": True, "-0.5E-3": True, "01": False, "1.": False})
    matches(
        schema(**CLOSED, properties={'a"': {"type": "null"}, "b": {"type": "null"}}, required=["b"]),
        {
            '{"a\\"":null,"b":null}': True,
            '{"b":null}': True,
            '{"a\\"":null}': False,
            '{"a"":null,"b":null}': False,
        },
    )
    matches(
        schema(type="object", properties={"ab": {"type": "null"}}, additionalProperties={"type": "integer"}),
        {
            '{"ab":1}': False,
            '{"a":1,"abc":2}': True,
            '{"ab":null,"b":1}': True,
            '{"a":null}': False,
            "{}": True,
        },
    )
    matches(
        schema(type="array", prefixItems=[{"type": "null"}], items={"type": "boolean"}, maxItems=2),
        {"[]": True, "[null,true]": True, "[true]": False, "[null,true,true]": False},
    )


@pytest.mark.parametrize("least", [None, -23, -1, 0, 7, 99])
@pytest.mark.parametrize("most", [None, -5, 0, 8, 100, 1234])
@needs_outlines
def test_whole_numbers_between_bounds(least: int | None, most: int | None) -> None:
    if least is not None and most is not None and least > most:
        return

    class Numbers(Choice):
        def language(self) -> Language:
            return Language(integers(least, most))

    guide = Numbers(["-"], backend=OUTLINES).bind(tiny_tokenizer())
    for number in (*range(-130, 131), -1235, 1233, 1234, 1235, 99999):
        inside = (least is None or number >= least) and (most is None or number <= most)
        assert accepts(guide, str(number)) == inside, number
    assert not accepts(guide, "007")


@both
def test_what_cannot_be_kept_is_refused_by_name_or_told(back_end: Any) -> None:
    with pytest.raises(BadInput, match=rf"backend {back_end}.*format 'uri' at /"):
        JsonSchema({"type": "string", "format": "uri"}, backend=back_end).bind(tiny_tokenizer())
    loose = JsonSchema({"type": "integer", "multipleOf": 5}, backend=back_end)
    assert [note.keyword for note in loose.enforcement.checked_at_end] == ["multipleOf"]
    matches(loose, {"5": True, "6": False})
    with pytest.raises(BadInput, match=r"strict.*multipleOf"):
        JsonSchema({"type": "integer", "multipleOf": 5}, strict=True, backend=back_end).bind(tiny_tokenizer())
    for pattern in (r"\d", "(?=a)b", "a(^b)", "(?i)a", r"\ba", "[a&&b]"):
        with pytest.raises(BadInput, match=f"backend {back_end}.*does not read"):
            Regex(pattern, backend=back_end).bind(tiny_tokenizer())


@needs_outlines
def test_outlines_core_has_no_recursion_and_no_grammars() -> None:
    with pytest.raises(BadInput, match="nests in itself"):
        Json(backend=OUTLINES).bind(tiny_tokenizer())
    with pytest.raises(BadInput, match="guide 'grammar' has no back end 'outlines-core'"):
        Grammar('root ::= "a"', backend=OUTLINES)


@needs_xgrammar
def test_xgrammar_reads_gbnf_and_no_lark() -> None:
    matches(Grammar('root ::= "a" root "b" | "1"', backend=XGRAMMAR), {"a1b": True, "1": True, "a1": False})
    for source, words in (('start: "a"', "reads GBNF"), ("root ::= x", "not defined")):
        with pytest.raises(BadInput, match=words):
            Grammar(source, backend=XGRAMMAR).bind(tiny_tokenizer())


@both
def test_texts_can_be_closed_in_time(back_end: Any) -> None:
    for tokens in (30, 40, 60):
        guide = JsonSchema(SCHEMA, close="in-time", backend=back_end)
        done = decode([guide], tokens=tokens, temperature=1.0, seed=tokens)[0]
        assert done.valid
        assert done.finish_reason == "stop"


@both
def test_compiling_is_bounded(back_end: Any) -> None:
    guide = Regex(
        "((((a{0,999}){0,999}){0,999}){0,999}){0,999}b", limits=Limits(compile_seconds=2.0), backend=back_end
    )
    assert "\n" not in refusal(lambda: guide.bind(tiny_tokenizer()))
    accepts(Choice(["a"], backend=back_end), "a")


def test_guides_without_other_back_ends_and_unknown_names_are_refused() -> None:
    for make in (
        lambda: Format("{a:int}", backend=XGRAMMAR),
        lambda: ToolCalls([{"name": "a", "parameters": {}}], backend=XGRAMMAR),
        lambda: Regex("a", backend="outlines"),  # type: ignore[arg-type]
    ):
        with pytest.raises(BadInput, match=r"has no back end .* it has: llguidance"):
            make()


def test_a_back_end_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ventris.guide.back_ends.choice.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'ventris\[outlines\]'"):
        check_back_end(OUTLINES, (OUTLINES,), "regex")
    with pytest.raises(BadInput, match="there is no back end 'xgrammar' here"):
        chosen([XGRAMMAR])


def test_a_guide_that_does_not_say_its_language_is_refused() -> None:
    class Own(Regex):
        name = "own"
        language = HardGuide.language

    guide = Own("a")
    guide.backend = OUTLINES
    with pytest.raises(BadInput, match=f"the guide 'own' does not say its language for .*'{OUTLINES}'"):
        guide.source()
