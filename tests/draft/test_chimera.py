"""Chimera with random weights: the contract, drafting against training, the memo, no look ahead."""

from __future__ import annotations

import pytest
import random_heads
import torch
from rehearsing import WatchedHeads
from trained import LONG, chimera, torch_place

from ventris.draft.chimera import Chimera
from ventris.draft.chimera_network import ChimeraNetwork
from ventris.draft.head_tree import grow_from_accuracies
from ventris.testing import check_drafter
from ventris.testing.checks import run
from ventris.verify.match import Coupled, Greedy

DEEP = grow_from_accuracies([[0.7, 0.2, 0.1]] * 3, 20)
PROMPTS = [[1, 2, 3, 1, 2], [4], [5, 6], LONG[:20]]


def network_for(place, left_out="nothing") -> ChimeraNetwork:
    """A network near its start."""
    torch.manual_seed(0)  # what is noticed below must not hang on the tests before
    network = chimera(place, left_out)
    random_heads.shake(network, 9)
    return network


@pytest.fixture
def plainly(monkeypatch):
    """Drafts in float32."""
    for where in ("draft.prefix_attention", "models.stages"):
        monkeypatch.setattr(f"ventris.{where}.drafting_dtype", lambda device: torch.float32)


@pytest.mark.parametrize("left_out", ["nothing", "trigrams", "context"])
@pytest.mark.parametrize("settings", [{}, {"choose": "dynamic"}, {"nodes": 3, "remembered": 2}])
def test_it_keeps_the_contract(left_out, settings):
    place = torch_place()
    check_drafter(Chimera(place.target, network_for(place, left_out), DEEP, **settings), place.target)


class Rehearsing(WatchedHeads):
    """Passes on to Chimera, and asks the network as it is trained for each of its guesses."""

    def is_ready(self, tokens):
        return len(tokens) > 1

    def known(self, tokens):
        """The target's rows of all tokens but the last, and others after them, which must not matter."""
        normed = self.network.vocabulary.normed(self.target_rows(tokens[:-1], self.drafter.taps[0]))
        return torch.cat([normed, 100 * torch.randn(3, self.drafter.target.hidden_size)])

    def logits(self, normed, tokens, path):
        target = self.drafter.target
        whole = [tokens[0], tokens[0], *tokens, *path[1:]]
        embedded = [target.embedding[[token]] for token in whole[-len(path) - 2 :]]
        at = torch.tensor([len(tokens) - 2])
        _, fused = self.network.unroll(normed[None], embedded, torch.zeros_like(at), at)
        return self.network.vocabulary.one(len(path) - 1, fused[-1])[0]


@pytest.mark.parametrize("choose", ["static", "dynamic"])
@pytest.mark.parametrize("left_out", ["nothing", "trigrams", "context"])
def test_drafting_does_what_training_rehearsed(plainly, left_out, choose):
    place = torch_place(listed=96)
    network = network_for(place, left_out)
    watched = Rehearsing(Chimera(place.target, network, DEEP, choose=choose), network)
    run(place.target, Greedy(), watched, prompts=PROMPTS)
    run(place.target, Coupled(), watched, prompts=PROMPTS, temperature=1.0, seed=3)
    assert all(watched.compared[depth] > 20 for depth in (1, 2, 3))


def test_a_branch_that_reads_another_s_state_is_noticed(plainly, monkeypatch):
    from ventris.draft import chimera as module

    real = module._pseudo_rows

    def crossed(seen, above):
        rows = real(seen, above)
        return [rows[-1], *rows[1:]]

    monkeypatch.setattr(module, "_pseudo_rows", crossed)
    place = torch_place(listed=96)
    network = network_for(place)
    with pytest.raises(AssertionError):
        run(place.target, Greedy(), Rehearsing(Chimera(place.target, network, DEEP), network), prompts=[LONG])


def test_the_memo_changes_no_draft():
    place = torch_place()
    network = network_for(place)
    with_memo, little, without = (
        Chimera(place.target, network, DEEP, remembered=most) for most in (1000, 3, 0)
    )
    seen = []
    for drafter in (with_memo, little, without):
        done = run(place.target, Greedy(), drafter, prompts=PROMPTS)
        seen.append([(c.tokens, c.stats.drafted, c.stats.accepted_by_depth) for c in done])
    assert seen[0] == seen[1] == seen[2]
    assert with_memo.memo.asked == without.memo.asked > 100
    assert with_memo.memo.found > little.memo.found
    assert len(little.memo._rows) == 3
    again = with_memo.memo.found
    run(place.target, Greedy(), with_memo, prompts=PROMPTS)
    assert with_memo.memo.found - again == with_memo.memo.asked / 2  # the second time all of them


def test_states_know_nothing_of_what_follows():
    place = torch_place()
    network, width = network_for(place).eval(), place.target.hidden_size
    normed = torch.randn(1, 9, width)
    embedded = [torch.randn(1, width, requires_grad=True) for _ in range(5)]
    at = torch.tensor([4])
    changed = normed.clone()
    changed[0, 5:] += 1
    before = network.unroll(normed, embedded, torch.zeros_like(at), at)[1]
    assert torch.equal(network.unroll(changed, embedded, torch.zeros_like(at), at)[1], before)
    for step in range(3):
        gradients = torch.autograd.grad(
            before[step].sum(), embedded, retain_graph=True, materialize_grads=True
        )
        touched = [bool(gradient.any()) for gradient in gradients]
        # Those of its own trigram; earlier states are read without gradient.
        assert touched == [step <= place < step + 3 for place in range(5)]
