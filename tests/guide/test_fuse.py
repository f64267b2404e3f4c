"""Fused models give what their rule says, computed here once more, and the same under every draft."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ventris.engine.errors import BadInput
from ventris.guide.fuse import WEIGHTS, Fuse, Rule
from ventris.parts import Workshop, build_guides
from ventris.testing import ToyTarget, check_guide
from ventris.testing.checks import PROMPT, run
from ventris.testing.guides import NoRepeatedPairs
from ventris.verify import Greedy

TARGET = ToyTarget(12, memory=2, sharpness=5.0)
SMALL = ToyTarget(12, memory=2, sharpness=5.0, blend=(9, 0.4))
TUNED = ToyTarget(12, memory=2, sharpness=5.0, blend=(5, 0.5))
RULES: list[Rule] = ["contrast", "interpolate", "proxy", "mixture"]


def fuse(rule: Rule, small: ToyTarget = SMALL, tuned: ToyTarget = TUNED, **options: float) -> Fuse:
    return Fuse(small, rule, tuned=tuned if rule == "proxy" else None, **options)


def text(*guides: object, target: ToyTarget = TARGET) -> list[int]:
    return run(target, Greedy(), guides=guides)[0].tokens  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULES)
def test_the_answer_depends_on_the_prefix_alone(rule):
    check_guide(lambda: fuse(rule))


@settings(max_examples=40)
@given(st.sampled_from(RULES), st.floats(0, 2), st.sampled_from([0.0, 0.1, 0.5]))
def test_the_text_is_that_of_the_rule(rule, weight, plausible):
    if rule == "mixture":
        weight = min(weight, 1.0)
    tokens = list(PROMPT)
    for _ in range(12):
        p, q, r = (model.logits(tokens).softmax(-1).tolist() for model in (TARGET, SMALL, TUNED))
        scores = []
        for one, other, third in zip(p, q, r, strict=True):
            score = {
                "contrast": one ** (1 + weight) / other**weight,
                "interpolate": other ** (1 - weight) * one**weight,
                "proxy": one * (third / other) ** weight,
                "mixture": (1 - weight) * one + weight * other,
            }[rule]
            if rule in ("contrast", "interpolate") and one < plausible * max(p) * (1 - 1e-12):
                score = 0.0
            scores.append(score)
        best = sorted(range(12), key=lambda token: -scores[token])[:2]
        if scores[best[1]] > scores[best[0]] * (1 - 1e-9):
            return  # a tie that rounding decides
        tokens.append(best[0])
    left_out = {"plausible": plausible} if rule in ("contrast", "interpolate") else {}
    assert text(fuse(rule, weight=weight, **left_out))[:12] == tokens[len(PROMPT) :]


def test_the_limits_of_each_rule_are_the_models_themselves():
    plain, small = text(), text(target=SMALL)
    assert plain != small
    assert text(fuse("interpolate", weight=1.0)) == plain
    assert text(fuse("interpolate", weight=0.0, plausible=0.0)) == small
    assert text(fuse("mixture", weight=0.0)) == plain
    assert text(fuse("mixture", weight=1.0)) == small
    assert text(fuse("contrast", weight=0.0)) == plain
    assert text(fuse("proxy", tuned=SMALL)) == plain
    assert text(fuse("proxy", small=TARGET, tuned=SMALL)) == small


def test_a_contrast_stays_with_what_the_target_finds_plausible():
    tokens = list(PROMPT)
    for token in text(fuse("contrast", weight=9.0, plausible=0.3)):
        probs = TARGET.logits(tokens).softmax(-1)
        assert probs[token] >= 0.3 * probs.max() - 1e-12
        tokens.append(token)


def test_a_small_model_with_fewer_tokens():
    shorter = ToyTarget(7, memory=2, sharpness=1.0)
    for rule in ("contrast", "interpolate"):
        assert max(text(fuse(rule, small=shorter))) < 7
    assert text(fuse("mixture", small=shorter, weight=0.01)) == text()


@pytest.mark.parametrize("weight", [1.01, -0.5])
def test_a_mixture_of_more_than_all_is_refused(weight):
    """It would be the logarithm of a negative number."""
    with pytest.raises(BadInput, match=rf"mixes by a share of 0 to 1, not {weight}; give weight=0.5"):
        fuse("mixture", weight=weight)


def test_a_mask_comes_after_it():
    tokens = text(NoRepeatedPairs(), fuse("mixture"))
    pairs = list(itertools.pairwise(tokens))
    assert len(set(pairs)) == len(pairs)


def test_the_weights_are_those_of_the_papers():
    assert (
        {rule: fuse(rule).weight for rule in RULES}
        == WEIGHTS
        == {
            "contrast": 0.5,
            "interpolate": 0.5,
            "proxy": 1.0,
            "mixture": 0.5,
        }
    )


def test_it_is_built_from_its_name_and_refuses_a_rule_without_its_models():
    workshop = Workshop(target=TARGET, load_target=lambda name: {"small": SMALL, "tuned": TUNED}[name])
    (built,) = build_guides("fuse:proxy,small=small,tuned=tuned,weight=2", workshop)
    assert built.models == [SMALL, TUNED]
    assert built.weight == 2
    with pytest.raises(BadInput, match="needs a tuned model"):
        build_guides("fuse:proxy,small=small", workshop)
    with pytest.raises(BadInput, match="no use for a tuned model"):
        build_guides("fuse:contrast,small=small,tuned=tuned", workshop)
    for rule in ("proxy", "mixture"):
        with pytest.raises(BadInput, match=f"leaves no tokens out in {rule}"):
            fuse(rule, plausible=0.1)
    with pytest.raises(BadInput, match="small"):
        build_guides("fuse:contrast", workshop)
    with pytest.raises(BadInput, match="rule"):
        build_guides("fuse:emulate,small=small", workshop)


def test_memory_of_the_streams_is_given_back():
    # `run` raises if the ledger still holds anything.
    assert len(text(fuse("proxy"))) == 24
    assert torch.isfinite(TARGET.logits(PROMPT)).all()
