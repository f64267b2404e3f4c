"""What Falcon learns from: glances, the pairs that they replace, and drafts along the text."""

from __future__ import annotations

import pytest
import torch

import ventris
from ventris.draft.falcon_network import block_ends
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.train.ahead import Ahead
from ventris.train.falcon import FalconObjective, glance, replaced
from ventris.train.objectives import Lesson
from ventris.train.settings import FalconSettings, read_settings
from ventris.train.windows import Batch

LENGTH = 23


@pytest.fixture(scope="module")
def model(tiny_folder):
    return ventris.load(str(tiny_folder), "float32", "torch", "cpu")


def objective(model, given, **changes) -> FalconObjective:
    """One with weights that all matter."""
    shortlist = Shortlist(torch.arange(40), model.target.vocab_size)
    settings = read_settings(FalconSettings, {**given, "heads": 5, **changes})
    torch.manual_seed(0)
    lesson = Lesson(model, model.source.config, TargetHead.of(model.source, shortlist), shortlist)
    made = FalconObjective(lesson, settings)
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    made.network.eval()
    return made


def batch_of(model, number: int = 0) -> Batch:
    """Two texts whose answers begin at different places."""
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(40, (2, LENGTH), generator=generator)
    answer = torch.arange(LENGTH) >= torch.tensor([[3], [9]])
    hidden = torch.randn((2, LENGTH, model.target.hidden_size), generator=generator)
    return Batch(tokens, answer, {model.target.num_layers: hidden}, number)


def ends_of(made: FalconObjective, batch: Batch) -> Ahead:
    """All ends of blocks of the first window that have five tokens after them."""
    k = made.settings.block
    at = torch.arange(k - 1, LENGTH - 6, k)
    row = torch.zeros_like(at)
    nothing = torch.zeros((len(at), 5))
    return Ahead(row, at, nothing.long(), nothing.bool())


@pytest.mark.parametrize(("block", "mixer"), [(1, "lstm"), (2, "lstm"), (3, "lstm"), (2, "linear")])
def test_drafts_along_the_text_are_those_of_the_network_from_scratch(model, given, block, mixer):
    made, batch = objective(model, given, block=block, mixer=mixer), batch_of(model)
    ahead = ends_of(made, batch)
    found = made.states(batch, ahead, 5)
    embedded = made._following(batch)[0]
    known = made.normed(batch)[0]
    for place, at in enumerate(ahead.at.tolist()):
        features = known[: at + 1]
        for done in range(0, 5, block):
            pairs = torch.cat([embedded[: at + 1 + done], features], dim=-1)
            with torch.no_grad():
                rows = made.network(pairs[None], block_ends(len(pairs), block, len(pairs) % block))[0]
            features = torch.cat([features, rows[-block:]])
        expected = features[at + 1 : at + 6]
        torch.testing.assert_close(found[:, place], expected, rtol=1e-3, atol=1e-4)


def test_drafts_know_nothing_of_what_follows(model, given):
    made, batch = objective(model, given), batch_of(model)
    ahead = ends_of(made, batch)
    before = made.states(batch, ahead, 2)
    for place in range(2, LENGTH):
        later = Batch(batch.tokens.clone(), batch.answer, {k: v.clone() for k, v in batch.hidden.items()})
        later.tokens[0, place] += 1
        later.hidden[model.target.num_layers][0, place] += 1
        moved = (made.states(later, ahead, 2) != before).any(dim=-1)
        # A block reads the features up to its end and the token after it.
        assert moved.tolist() == [(place - 1 <= ahead.at).tolist()] * 2


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("share", [0.1, 0.4, 2.0])
def test_as_many_are_glanced_at_as_guesses_were_wrong_times_the_share(k, share):
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand((400, k), generator=generator) < 0.5
    glanced = glance(wrong, share, generator)
    assert not glanced[:, -1].any()
    # A run begins with its block.
    assert (glanced[:, 1:] <= glanced[:, :-1]).all()
    wanted = int(share * int(wrong.sum()))
    assert min(wanted, 400) - k < int(glanced.sum()) <= wanted
    assert not glance(torch.zeros_like(wrong), share, generator).any()


@pytest.mark.parametrize("k", [2, 3])
def test_glanced_positions_get_the_pair_a_block_ahead(k):
    pairs = torch.arange(2 * 12.0).view(2, 12, 1).expand(2, 12, 4).clone()
    at = torch.tensor([k - 1, 2 * k - 1, 2 * k - 1])
    ahead = Ahead(torch.tensor([0, 0, 1]), at, at[:, None], at[:, None] > 0)
    glanced = torch.zeros((3, k), dtype=torch.bool)
    glanced[0, 0] = glanced[2, : k - 1] = True
    changed = replaced(pairs, ahead, glanced)
    expected = pairs.clone()
    expected[0, 0] += k
    expected[1, k : 2 * k - 1] += k
    assert torch.equal(changed, expected)


def test_a_glance_shows_the_second_of_a_block_what_comes_before_its_token(model, given):
    """What the others of a block see after a glance is the right pair, and never their own token."""
    made, batch = objective(model, given), batch_of(model)
    pairs = torch.cat([made._following(batch), made.normed(batch)], dim=-1)
    seen = block_ends(LENGTH, 2)
    ahead = ends_of(made, batch)
    glanced = torch.zeros((len(ahead.at), 2), dtype=torch.bool)
    glanced[3, 0] = True
    end = int(ahead.at[3])
    pairs = replaced(pairs, ahead, glanced).requires_grad_()
    made.network(pairs, seen)[0, end].sum().backward()
    # The pair of end + 1 stands at end - 1: it ends with the token at end + 2, and the guess is for end + 3.
    assert torch.equal(pairs[0, end - 1], pairs[0, end + 1])
    assert pairs.grad[0, end - 1].any()
    assert not pairs.grad[0, end + 1 :].any()


def test_the_share_falls_over_the_run_and_a_plain_shift_glances_at_nothing(model, given, monkeypatch):
    counted = []

    def counting(wrong, share, generator):
        counted.append((share, int(wrong.sum())))
        return glance(wrong, share, generator)

    monkeypatch.setattr("ventris.train.falcon.glance", counting)
    made = objective(model, given, steps=10)
    for number in (0, 5, 9):
        made.loss(batch_of(model, number), torch.Generator().manual_seed(0))
    assert [share for share, _ in counted] == pytest.approx([0.4, 0.2, 0.04])
    assert all(wrong > 0 for _, wrong in counted)
    for changes in ({"glancing": 0}, {"block": 1}):
        plain = objective(model, given, **changes)
        assert plain.loss(batch_of(model), torch.Generator().manual_seed(0)).isfinite()
    assert len(counted) == 3
