"""Falcon with random weights: the contract, drafting against training, blocks, the LSTM, given-up steps."""

from __future__ import annotations

import numpy as np
import pytest
import random_heads
import torch
from rehearsing import WatchedHeads
from torch import nn
from trained import LONG, TREE, falcon, native_place, torch_place

from ventris.draft.falcon import Falcon
from ventris.draft.falcon_network import FalconNetwork, block_ends
from ventris.draft.fast_lstm import FastLstm
from ventris.draft.head_tree import grow_from_accuracies
from ventris.testing import check_drafter
from ventris.testing.checks import run
from ventris.verify.match import Coupled, Greedy

DEEP = grow_from_accuracies([[0.7, 0.2, 0.1]] * 6, 40)


def network_for(place, block=2, recurrent=True) -> FalconNetwork:
    """A network near its start."""
    torch.manual_seed(0)  # what is noticed below must not hang on the tests before
    network = falcon(place, block, recurrent)
    random_heads.shake(network, 9)
    return network


@pytest.mark.parametrize(
    ("block", "recurrent", "settings"),
    [
        (2, True, {}),
        (2, True, {"choose": "dynamic"}),
        (2, True, {"nodes": 3}),
        (3, True, {}),
        (3, False, {"choose": "dynamic", "nodes": 40}),
        (1, True, {}),
        (2, False, {}),
    ],
)
def test_it_keeps_the_contract(block, recurrent, settings):
    place = torch_place()
    check_drafter(Falcon(place.target, network_for(place, block, recurrent), DEEP, **settings), place.target)


class Rehearsing(WatchedHeads):
    """Passes on to Falcon, and asks the network as it is trained, from scratch, for each of its guesses."""

    def is_ready(self, tokens):
        return len(tokens) > self.network.block  # before there are k pairs there is no block

    def known(self, tokens):
        """The features of all tokens but the last, by the tokens before them."""
        return {(): self.network.vocabulary.normed(self.target_rows(tokens[:-1], self.drafter.taps[0]))}

    def logits(self, known, tokens, path):
        """Every block is read again from the beginning of the text.

        Args:
            known: The target's features, and those of the blocks that were read, by the tokens before them.
        """
        k, level = self.network.block, len(path) - 1
        phase = len(known[()]) % k  # so that a block ends with the last pair
        for done in range(0, level + 1, k):
            before = tuple(path[: done + 1])
            if before not in known:
                features = torch.cat([known[()], *(known[before[: at + 1]] for at in range(0, done, k))])
                embedded = self.drafter.target.embedding[[*tokens[1:], *before[1:]]]
                pairs = torch.cat([embedded, features], dim=-1)
                known[before] = self.network(pairs[None], block_ends(len(pairs), k, phase))[0, -k:]
        return self.network.vocabulary.one(0, known[before][level % k][None])[0]


@pytest.mark.parametrize("choose", ["static", "dynamic"])
@pytest.mark.parametrize(("block", "recurrent"), [(1, True), (2, True), (3, True), (2, False)])
def test_drafting_does_what_training_rehearsed(monkeypatch, block, recurrent, choose):
    for where in ("draft.decoder_beside", "models.stages"):
        monkeypatch.setattr(f"ventris.{where}.drafting_dtype", lambda device: torch.float32)
    place = torch_place(listed=96)
    network = network_for(place, block, recurrent)
    watched = Rehearsing(Falcon(place.target, network, DEEP, nodes=60, choose=choose), network)
    prompts = [[1, 2, 3, 1, 2], [4], LONG]
    run(place.target, Greedy(), watched, prompts=prompts)
    run(place.target, Coupled(), watched, prompts=prompts, temperature=1.0, seed=3)
    assert all(watched.compared[depth] > 20 for depth in (1, 2, 3, 4))


def test_a_wrong_phase_is_noticed(monkeypatch):
    """The comparison above sees blocks that end one token early."""
    for where in ("draft.decoder_beside", "models.stages"):
        monkeypatch.setattr(f"ventris.{where}.drafting_dtype", lambda device: torch.float32)
    late = [block_ends(length, 2, 1 + length % 2) for length in range(100)]
    monkeypatch.setattr("test_falcon.block_ends", lambda length, k, phase: late[length])
    place = torch_place(listed=96)
    network = network_for(place)
    with pytest.raises(AssertionError):
        run(place.target, Greedy(), Rehearsing(Falcon(place.target, network, DEEP), network), prompts=[LONG])


def test_blocks():
    assert block_ends(7, 1).tolist() == list(range(7))
    assert block_ends(7, 2).tolist() == [1, 1, 3, 3, 5, 5, 7]
    assert block_ends(7, 3, 1).tolist() == [0, 3, 3, 3, 6, 6, 6]


def test_a_position_sees_its_whole_block_and_no_later_one():
    place = torch_place()
    network = network_for(place).eval()
    pairs = torch.randn(1, 9, 2 * place.target.hidden_size)
    with torch.no_grad():
        before = network(pairs, block_ends(9, 2))[0]
        for changed in range(9):
            other = pairs.clone()
            other[0, changed] += 1
            moved = (network(other, block_ends(9, 2))[0] != before).any(dim=1)
            assert moved.tolist() == [place >= changed - changed % 2 for place in range(9)]


@pytest.mark.parametrize("native", [False, True])
def test_the_lstm_reads_on_as_torch_s_does(monkeypatch, native):
    monkeypatch.setattr("ventris.models.stages.drafting_dtype", lambda device: torch.float32)
    target = (native_place("float32") if native else torch_place()).target
    torch.manual_seed(0)
    lstm = nn.LSTM(2 * 64, 64, 2, batch_first=True)
    fast = FastLstm(lstm, target)
    texts = [torch.randn(length, 2 * 64) for length in (1, 7, 4)]
    firsts, rests = [text[:1].numpy() for text in texts], [text[1:].numpy() for text in texts]
    rows, states = fast.run(firsts, [fast.start()] * 3)
    more, states[1:] = fast.run(rests[1:], states[1:])
    rows[1:] = [np.concatenate(parts) for parts in zip(rows[1:], more, strict=True)]
    for text, found, state in zip(texts, rows, states, strict=True):
        with torch.no_grad():
            expected, (hidden, cell) = lstm(text[None])
        # The native runtime rounds weights and activations to 8 bits.
        close = {"rtol": 0, "atol": 0.03 if native else 1e-5}
        torch.testing.assert_close(torch.from_numpy(found), expected[0], **close)
        torch.testing.assert_close(torch.from_numpy(state), torch.stack([hidden, cell], 1)[:, :, 0], **close)


def test_the_native_layer_drafts_nearly_what_the_torch_layer_does(monkeypatch):
    from tiny_decoders import LLAMA, random_weights

    from ventris.models.torch_decoder import TorchDecoder

    for where in ("draft.decoder_beside", "models.stages"):
        monkeypatch.setattr(f"ventris.{where}.drafting_dtype", lambda device: torch.float32)
    place = native_place("float32")
    network = network_for(place)
    found = []
    for target in (place.target, TorchDecoder(LLAMA, random_weights(LLAMA))):
        drafter, seen = Falcon(target, network, DEEP, choose="dynamic"), []

        class Noting:
            def __getattr__(self, name, drafter=drafter):
                return getattr(drafter, name)

            def propose(self, jobs, drafter=drafter, seen=seen):
                trees = drafter.propose(jobs)
                seen += [max(tree.confidence[1:], default=0.0) for tree in trees]
                return trees

        run(target, Greedy(), Noting(), prompts=[LONG])
        found.append(seen)
    assert found[0] == pytest.approx(found[1], abs=0.05)
    assert max(found[1]) > 0.1


def test_short_prompts_wait_for_a_whole_block():
    place = torch_place()
    drafter = Falcon(place.target, network_for(place, 3), TREE)
    for done in run(place.target, Greedy(), drafter, prompts=[[3], [3, 4]]):
        assert done.stats.drafted
