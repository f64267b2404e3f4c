"""Medusa and Hydra with random heads keep the whole contract of a drafter, on torch and native targets."""

from __future__ import annotations

import pytest
import random_heads
import torch

from ventris.testing import check_drafter


@pytest.mark.parametrize("tree", ["static", "dynamic"])
@pytest.mark.parametrize(("rows", "layers"), [("tied", 1), ("stored", 1), ("own", 1), ("tied", 3)])
def test_medusa_keeps_the_contract(rows, layers, tree):
    target = random_heads.tiny_target()
    drafter = random_heads.medusa(target, random_heads.medusa_heads(target, rows, layers), choose=tree)
    check_drafter(drafter, target)


@pytest.mark.parametrize("choose", ["static", "dynamic"])
@pytest.mark.parametrize(("layers", "prefix"), [(1, False), (3, False), (1, True), (4, True)])
def test_hydra_keeps_the_contract(layers, prefix, choose):
    target = random_heads.tiny_target()
    network = random_heads.hydra_heads(target, "tied", layers, prefix)
    check_drafter(random_heads.hydra(target, network, choose=choose), target)


def test_untrained_heads_guess_what_the_target_would_say():
    target = random_heads.tiny_target()
    network = random_heads.medusa_heads(target, "tied", listed=target.vocab_size)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.zero_()
    rows = torch.randn(5, target.hidden_size)
    logits = network.vocabulary(network(network.vocabulary.normed(rows)))
    for head in logits:
        torch.testing.assert_close(head, target.head(rows), rtol=1e-4, atol=1e-4)
