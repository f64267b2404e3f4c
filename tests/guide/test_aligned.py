"""Sampling from p given the grammar: the law by enumeration, from the first text on or in the limit."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ventris import Model
from ventris.engine.errors import BadInput, Incompatible, VentrisError
from ventris.engine.ledger import MemoryLedger
from ventris.engine.parts import RequestView
from ventris.engine.sampling import Sampling
from ventris.guide import Aligned, JsonSchema, Regex, Words
from ventris.guide.aligned import AlignedState
from ventris.testing import ToyTarget
from ventris.testing.checks import run
from ventris.verify import Coupled, Synthetic

from .test_contract import TwelveTokens
from .tiny import TinyTarget, tiny_tokenizer

TOKENIZER: Any = TwelveTokens()
TARGET = ToyTarget(vocab_size=12, seed=3, sharpness=1.0)
LANGUAGE = "a(b1|[ab]{2}12)?|1(b|a1a1)"
PROMPT = [1, 2]
LIMIT = 6

Law = dict[tuple[int, ...], float]


def view(tokens: list[int], temperature: float = 1.0) -> RequestView:
    return RequestView(
        TARGET,
        PROMPT,
        [*PROMPT, *tokens],
        Sampling(temperature=temperature),
        LIMIT,
        frozenset({0}),
        MemoryLedger(),
    )


def target_law(tokens: tuple[int, ...], temperature: float) -> torch.Tensor:
    return (TARGET.logits([*PROMPT, *tokens]) / temperature).softmax(-1)


def conditional(temperature: float = 1.0) -> Law:
    """p(x | valid and no longer than the limit), every text of the language in turn."""
    law: Law = {}
    guide = Regex(LANGUAGE, forced=False).bind(TOKENIZER)

    def go_on(tokens: tuple[int, ...], probability: float) -> None:
        state = guide.start(view(list(tokens)))
        for token in tokens:
            state.advance(token)
        mask = state.adjust(torch.zeros(12), SimpleNamespace())
        for token in range(12):
            chance = probability * float(target_law(tokens, temperature)[token])
            if mask[token] == 0 and token == 0:
                law[tokens] = chance
            elif mask[token] == 0 and len(tokens) + 1 < LIMIT:
                go_on((*tokens, token), chance)

    go_on((), 1.0)
    total = sum(law.values())
    return {tokens: chance / total for tokens, chance in law.items()}


def law_of_an_attempt(aligned: Aligned, temperature: float, monkeypatch: pytest.MonkeyPatch) -> Law:
    """The probability of each text in the next attempt, not counting those that are broken off."""
    monkeypatch.setattr(AlignedState, "_breaks_off", lambda self: False)
    law: Law = {}

    def go_on(state: AlignedState, request: RequestView, tokens: tuple[int, ...], probability: float) -> None:
        request.tokens[:] = [*PROMPT, *tokens]
        row = state.adjust(TARGET.logits([*PROMPT, *tokens]).clone(), SimpleNamespace())
        if state.broken_off:
            return
        law_here = (row / temperature).softmax(-1)
        for token in range(12):
            chance = probability * state.chance * float(law_here[token])
            if chance > 0 and token == 0:
                law[tokens] = law.get(tokens, 0.0) + chance
            elif chance > 0:
                twin = copy.copy(state)
                twin.inner = state.inner.fork()
                # What this branch learns must not help the others.
                twin._path = copy.deepcopy(state._path)
                twin.advance(token)
                go_on(twin, request, (*tokens, token), chance)

    request = view([], temperature)
    state = aligned.bind(TOKENIZER).start(request)
    state._path = copy.deepcopy(state._path)
    go_on(state, request, (), 1.0)
    monkeypatch.undo()
    return law


def attempts(aligned: Aligned, count: int, temperature: float = 1.0, seed: int = 0) -> None:
    """Let it learn."""
    for number in range(count):
        bound, settings = aligned.bind(TOKENIZER), {"temperature": temperature, "seed": seed + number}
        run(TARGET, Coupled(), None, [bound], [PROMPT], LIMIT, [0], **settings)


def distance(law: Law, other: Law) -> float:
    return sum(abs(law.get(text, 0.0) - other.get(text, 0.0)) for text in {*law, *other}) / 2


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("learnt", [0, 1, 5, 40])
def test_exact_from_the_first_text_on(
    learnt: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned = Aligned(Regex(LANGUAGE), "exact")
    attempts(aligned, learnt, temperature)
    law = law_of_an_attempt(aligned, temperature, monkeypatch)
    finished = sum(law.values())
    expected = conditional(temperature)
    assert set(law) == set(expected)
    for text, probability in expected.items():
        assert math.isclose(law[text] / finished, probability, rel_tol=1e-9)


def test_learning_makes_breaking_off_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    aligned = Aligned(Regex(LANGUAGE), "exact")
    before = sum(law_of_an_attempt(aligned, 1.0, monkeypatch).values())
    attempts(aligned, 300)
    after = sum(law_of_an_attempt(aligned, 1.0, monkeypatch).values())
    assert before < 0.2
    assert after > 0.9


def test_adaptive_approaches_the_conditional_and_masking_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = conditional()
    aligned = Aligned(Regex(LANGUAGE))
    distances = []
    for _ in range(4):
        distances.append(distance(law_of_an_attempt(aligned, 1.0, monkeypatch), expected))
        attempts(aligned, 100, seed=1000 * len(distances))
    assert distances[0] > 0.05  # masking step by step
    assert distances[-1] < 0.02 * distances[0]


def test_sampling_from_a_model() -> None:
    aligned = Aligned(Regex(LANGUAGE), "exact")
    model: Any = SimpleNamespace(tokenizer=TOKENIZER)
    real = Model(TARGET)
    model.engine = real.engine
    model.request = lambda prompt, **settings: real.request(prompt, **settings, stop_ids=[0])
    counts: Law = {}
    for seed in range(300):
        done = aligned.sample(model, PROMPT, max_new_tokens=LIMIT, seed=seed)
        assert done.valid
        assert "valid under regex and end within 6 tokens" in done.guarantee.statement
        text = tuple(done.tokens[:-1])
        counts[text] = counts.get(text, 0.0) + 1 / 300
    assert distance(counts, conditional()) < 0.1


def test_what_cannot_work_is_refused() -> None:
    aligned = Aligned(Regex("a+"))
    for sampling, other, said in (
        (Sampling(), None, "set a temperature"),
        (Sampling(temperature=1.0, top_k=3), None, "cut the distribution"),
        (Sampling(temperature=1.0), Synthetic(), "not exact"),
        (Sampling(temperature=1.0), Words(exclude=["b"]), "the whole distribution"),
    ):
        with pytest.raises(Incompatible, match=said):
            aligned.check_with([other] if other else [], sampling)
    with pytest.raises(Incompatible, match="closing in time"):
        Aligned(Regex("a+", close="in-time"))
    with pytest.raises(BadInput, match="method is 'best'"):
        Aligned(Regex("a+"), "best")  # type: ignore[arg-type]
    with pytest.raises(Incompatible, match="method='exact'"):
        aligned.sample(None, PROMPT)


def test_giving_up_is_an_error() -> None:
    model: Any = SimpleNamespace(tokenizer=TOKENIZER)
    real = Model(ToyTarget(vocab_size=12, seed=3, sharpness=9.0))
    model.engine = real.engine
    model.request = lambda prompt, **settings: real.request(prompt, **settings, stop_ids=[0])
    with pytest.raises(VentrisError, match="raise attempts"):
        Aligned(Regex("1{5}"), "exact").sample(model, PROMPT, attempts=1, max_new_tokens=8)


def test_a_text_that_ends_with_a_rule_broken_is_no_sample() -> None:
    tokenizer = tiny_tokenizer()
    # Behind "1" both ways on are broken, and that is seen when it is too late.
    guide = JsonSchema({"enum": ["red", "12a", "12b"], "not": {"pattern": "2"}})
    model = Model(TinyTarget(), tokenizer)
    free = [model.generate([PROMPT], guides=[guide], temperature=1.0, seed=seed)[0] for seed in range(20)]
    assert {done.finish_reason for done in free} == {"stop", "error"}
    assert {done.text for done in free if done.finish_reason == "stop"} == {'"red"'}
    aligned = Aligned(guide, "exact")
    texts = [aligned.sample(model, PROMPT, seed=seed, max_new_tokens=8).text for seed in range(20)]
    assert set(texts) == {'"red"'}
