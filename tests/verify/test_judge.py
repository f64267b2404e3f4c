"""The judge reads each token's own row, adds to the exact rule alone, and says where tokens come from."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ventris.draft import checkpoint
from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.model import DraftModel
from ventris.draft.target_sketch import TargetSketch
from ventris.engine.batch import Engine
from ventris.engine.errors import BadInput, Incompatible
from ventris.engine.ledger import MemoryLedger
from ventris.engine.parts import RequestView
from ventris.engine.request import Request
from ventris.engine.sampling import Sampling, SamplingState
from ventris.engine.trace import Trace
from ventris.engine.tree import TokenTree
from ventris.engine.walk import Walk
from ventris.parts import Workshop, build_one
from ventris.policy.fixed import Fixed
from ventris.testing import ToyTarget, check_verifier
from ventris.testing.checks import run
from ventris.testing.guides import Amateur, NoRepeatedPairs
from ventris.verify import Greedy, Judge, Rejection
from ventris.verify.judge_head import JudgeHead

VOCABULARY = 8
LAYER = 1


def by_token(rows: Tensor) -> Tensor:
    """A judge of toy rows, whose whole part is the token: some number for each token."""
    return (rows[:, 0].floor() * 0.37).remainder(1.0)


def pair() -> tuple[ToyTarget, ToyTarget]:
    """A target and a smaller model that often disagrees."""
    target = ToyTarget(VOCABULARY, seed=1, sharpness=3.0, memory=3)
    return target, ToyTarget(VOCABULARY, seed=1, sharpness=3.0, memory=3, blend=(7, 0.5))


def walk_over(
    tokens: list[int],
    logits: Tensor,
    rows: Tensor,
    ends: frozenset[int] = frozenset(),
    parents: list[int] | None = None,
) -> Walk:
    """A walk over drafted tokens; ``logits[i]`` come after ``tokens[i]``, ``rows[i]`` have read it."""
    sampling = Sampling()
    view = RequestView(ToyTarget(VOCABULARY), [0], [0], sampling, 50, ends, MemoryLedger())
    state = SamplingState(sampling, [0], sorted(ends), 50, VOCABULARY)
    tree = TokenTree.chain(tokens) if parents is None else TokenTree(tokens, parents)
    return Walk(tree, logits, view, state, hidden={LAYER: rows})


def wants(*best: int) -> Tensor:
    """Logits whose most probable tokens are given."""
    return 5.0 * torch.eye(VOCABULARY)[list(best)]


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_threshold_of_1_is_the_exact_rule(samples: int, temperature: float):
    target, small = pair()
    settings = {"temperature": temperature, "seed": 4}
    exact = Greedy() if temperature == 0 else Rejection()
    one, other = (
        run(target, verifier, DraftModel(small, samples=samples), tokens=60, **settings)[0]
        for verifier in (exact, Judge(by_token, LAYER, 1.0))
    )
    assert one.tokens == other.tokens
    assert one.stats.accepted_by_depth == other.stats.accepted_by_depth


def test_without_a_draft_it_is_plain_decoding():
    target, _ = pair()
    assert run(target, Judge(by_token, LAYER, 0.0))[0].tokens == run(target, Greedy())[0].tokens


def test_the_row_judged_is_that_of_the_drafted_token():
    # Drafts 4, 5, 6 where the target wants 1; rows say which tokens pass.
    rows = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    walk = walk_over([0, 4, 5, 6], wants(1, 1, 1, 1), rows)
    Judge(lambda tapped: tapped[:, 0], LAYER, 0.5).select(walk)
    assert walk.taken == [4, 5, 1]  # the root's own row, a 0, refuses nothing
    assert walk.sources == ["judge", "judge", "target"]


def test_what_the_exact_rule_keeps_is_not_asked_of_the_judge():
    walk = walk_over([0, 4, 5], wants(4, 5, 2), torch.zeros(3, 1))
    Judge(lambda tapped: tapped[:, 0], LAYER, 0.5).select(walk)
    assert walk.taken == [4, 5, 2]
    assert walk.sources == ["", "", "target"]


def test_of_several_drafts_the_one_judged_best_is_kept():
    rows = torch.tensor([[0.0], [0.6], [0.9], [0.7]])
    walk = walk_over([0, 4, 5, 6], wants(1, 1, 2, 1), rows, parents=[-1, 0, 0, 0])
    Judge(lambda tapped: tapped[:, 0], LAYER, 0.5).select(walk)
    assert walk.taken == [5, 2]


def test_the_judge_ends_no_text():
    rows = torch.ones(3, 1)
    walk = walk_over([0, 4, 7], wants(1, 1, 1), rows, ends=frozenset([7]))
    Judge(lambda tapped: tapped[:, 0], LAYER, 0.5).select(walk)
    assert walk.taken == [4, 1]


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_keeps_no_more(seed: int, one: float, other: float):
    generator = torch.Generator().manual_seed(seed)
    drafted = [0, *torch.randint(VOCABULARY, (6,), generator=generator).tolist()]
    logits = 2 * torch.randn((7, VOCABULARY), generator=generator)
    rows = torch.rand((7, 1), generator=generator)
    kept = []
    for threshold in sorted((one, other)):
        walk = walk_over(drafted, logits, rows)
        Judge(lambda tapped: tapped[:, 0], LAYER, threshold).select(walk)
        kept.append(walk.accepted)
    assert kept[0] >= kept[1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_trace_tells_draft_target_and_judge_apart(temperature: float):
    target, small = pair()
    trace = Trace()
    engine = Engine(target)
    sampling = Sampling(temperature=temperature, seed=2)
    judge = Judge(by_token, LAYER, 0.6)
    done = engine.add(Request([1, 2], judge, Fixed(), 80, sampling, DraftModel(small), trace=trace))
    sources = [source for event in engine.run() for source in event.sources]
    visits = [visit for step in trace.steps for visit in step.visits]
    assert {visit.source for visit in visits} == {"model", "target", "judge"}
    assert [visit.source for visit in visits] == sources
    assert done.stats.accepted == sum(source != "target" for source in sources)
    for visit in visits:
        passes = float(by_token(torch.tensor([[float(visit.token)]]))) > 0.6
        if visit.source == "judge":
            assert passes
        if temperature == 0:
            assert (visit.token == visit.candidates[0][0]) == (visit.source != "judge")


def test_a_mask_and_a_ban_hold():
    target, small = pair()
    keep_all = Judge(lambda rows: torch.ones(len(rows)), LAYER, 0.5)
    text = run(target, keep_all, DraftModel(small), [NoRepeatedPairs()], tokens=40)[0].tokens
    pairs = list(pairwise(text))
    assert len(set(pairs)) == len(pairs)
    free = run(target, keep_all, DraftModel(small), tokens=40)[0].tokens
    banned = free[0]
    assert banned not in run(target, keep_all, DraftModel(small), tokens=40, banned=[[banned]])[0].tokens


def test_alone_and_in_a_batch_it_keeps_the_same():
    target, small = pair()
    prompts = [[1, 2, 3], [4], [5, 6] * 9]
    judge = Judge(by_token, LAYER, 0.6)
    together = run(target, judge, DraftModel(small), prompts=prompts)
    alone = [run(target, judge, DraftModel(small), prompts=[prompt])[0] for prompt in prompts]
    assert [done.tokens for done in together] == [done.tokens for done in alone]


def test_a_guide_that_moves_probabilities_is_refused():
    target, small = pair()
    with pytest.raises(Incompatible, match="would undo what this guide changes"):
        run(target, Judge(by_token, LAYER), DraftModel(small), [Amateur(small)])


def test_it_keeps_the_contract_and_says_that_it_is_approximate():
    check_verifier(lambda: Judge(by_token, LAYER))
    target, small = pair()
    guarantee = run(target, Judge(by_token, LAYER), DraftModel(small))[0].guarantee
    assert not guarantee.exact
    assert guarantee.statement.startswith("approximate: verifier 'judge'")


# The head and its checkpoint.


def write(folder: Path, target: ToyTarget) -> HeadCheckpoint:
    head = JudgeHead(target.hidden_size, LAYER)
    made = HeadCheckpoint("judge", TargetSketch.of(target), head.sizes, {"threshold": 0.7}, head.state_dict())
    made.save(folder)
    return made


def test_the_head_is_a_logistic_unit_on_rows_of_one_length():
    head = JudgeHead(4, LAYER)
    row = torch.tensor([[1.0, -2.0, 3.0, 0.5]])
    expected = torch.sigmoid(head.unit(row / row.square().mean().sqrt()))
    assert torch.allclose(head(row), expected[:, 0], atol=1e-5)
    assert torch.allclose(head(row), head(10 * row), atol=1e-5)
    assert head(torch.zeros(2, 4)).isfinite().all()


def test_a_checkpoint_brings_its_threshold_and_another_target_is_refused(tmp_path, monkeypatch):
    target, small = pair()
    write(tmp_path / "judge-any-name", target)
    spec = f"judge:{tmp_path / 'judge-any-name'}"
    assert build_one("verifier", spec, Workshop(target)).threshold == 0.7
    assert build_one("verifier", f"{spec},threshold=0", Workshop(target)).threshold == 0.0
    with pytest.raises(BadInput, match="trained for another target"):
        build_one("verifier", spec, Workshop(ToyTarget(VOCABULARY + 1)))
    with pytest.raises(BadInput, match="no judge checkpoint comes with Ventris"):
        build_one("verifier", "judge", Workshop(target))
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    found = build_one("verifier", "judge", Workshop(target))
    assert (found.taps, found.threshold) == ((LAYER,), 0.7)
    assert len(run(target, found, DraftModel(small))[0].tokens) == 24


def test_a_preview_needs_no_checkpoint_and_refuses_alike():
    judge = build_one("verifier", "judge", Workshop())
    with pytest.raises(Incompatible):
        judge.check_with([Amateur(pair()[1])], Sampling())
    with pytest.raises(BadInput, match="threshold"):
        build_one("verifier", "judge:threshold=2", Workshop())
