"""Medusa and Hydra with random heads keep the whole contract of a drafter, on torch and native targets."""

from __future__ import annotations

import pytest
import random_heads
import torch
from tiny_decoders import LLAMA, random_weights

from ventris.draft.head_tree import grow_from_accuracies
from ventris.draft.hydra import Hydra
from ventris.draft.hydra_heads import HydraHeads
from ventris.draft.medusa import Medusa
from ventris.draft.medusa_heads import MedusaHeads
from ventris.draft.ngram import NGram
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import Shortlist
from ventris.draft.stack import Stack
from ventris.draft.target_head import TargetHead
from ventris.testing import check_drafter
from ventris.testing.checks import run
from ventris.verify.match import Coupled, Greedy

LONG = [1 + i % 60 for i in range(45)]  # read in several chunks of sixteen


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


def make(kind, target):
    if kind == "medusa":
        return random_heads.medusa(target, random_heads.medusa_heads(target))
    return random_heads.hydra(target, random_heads.hydra_heads(target, layers=2, prefix=True))


@pytest.mark.parametrize("kind", ["medusa", "hydra"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
def test_other_families_and_long_prompts_in_a_batch(kind, family):
    target = random_heads.tiny_target(family)
    drafter = make(kind, target)
    prompts = [LONG, [3, 4], LONG[:30], [7]]
    for verifier, settings in ((Greedy(), {}), (Coupled(), {"temperature": 1.0, "seed": 4})):
        plain = [c.tokens for c in run(target, verifier, None, prompts=prompts, **settings)]
        drafted = run(target, verifier, drafter, prompts=prompts, **settings)
        assert [c.tokens for c in drafted] == plain
        assert all(c.stats.drafted for c in drafted)


@pytest.mark.parametrize("kind", ["medusa", "hydra"])
def test_a_stack_with_another_drafter(kind):
    target = random_heads.tiny_target()
    check_drafter(Stack([NGram(min_match=2), make(kind, target)]), target)


@pytest.mark.parametrize("kind", ["medusa", "hydra"])
def test_on_the_native_runtime(kind):
    from ventris.models.native import NativeDecoder, NativeUnavailable

    weights = random_weights(LLAMA)
    try:
        target = NativeDecoder.from_weights(LLAMA, weights, "int8", threads=1)
    except NativeUnavailable as reason:
        pytest.skip(str(reason))
    shortlist = Shortlist(torch.arange(100), LLAMA.vocab_size)
    head = TargetHead(weights["model.norm.weight"], LLAMA.norm_eps, weights["lm_head.weight"][:100])
    if kind == "medusa":
        network = MedusaHeads(3, LLAMA.hidden_size, 100, "stored")
        network.vocabulary.begin(shortlist, head)
        random_heads.shake(network, 3)
        drafter = Medusa(target, network, grow_from_accuracies(random_heads.ACCURACIES, 64))
    else:
        network = HydraHeads(3, LLAMA.hidden_size, 100, "stored", 2, PrefixSizes.of(LLAMA).stored())
        network.vocabulary.begin(shortlist, head)
        random_heads.shake(network, 3)
        drafter = Hydra(target, network, grow_from_accuracies(random_heads.ACCURACIES, 64))
    check_drafter(drafter, target)


@pytest.mark.parametrize("kind", ["medusa", "hydra"])
def test_the_shortlist_changes_drafts_and_never_outputs(kind):
    target = random_heads.tiny_target()
    plain = [c.tokens for c in run(target, Greedy(), None, prompts=[[3, 4], LONG])]
    for listed in (1, 2, 17, target.vocab_size):
        if kind == "medusa":
            drafter = random_heads.medusa(target, random_heads.medusa_heads(target, listed=listed))
        else:
            drafter = random_heads.hydra(target, random_heads.hydra_heads(target, listed=listed))
        assert [c.tokens for c in run(target, Greedy(), drafter, prompts=[[3, 4], LONG])] == plain


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
