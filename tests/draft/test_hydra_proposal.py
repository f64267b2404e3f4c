"""Hydra's incremental proposal equals one that recomputes everything from the text."""

from __future__ import annotations

import pytest
import random_heads
import torch

from ventris.engine.target import Rows
from ventris.testing.checks import run
from ventris.verify.match import Coupled, Greedy


class Recomputing:
    """Passes on to Hydra and recomputes each of its trees by brute force."""

    def __init__(self, drafter, network):
        self.drafter, self.network = drafter, network
        self.name, self.shape, self.draws, self.taps = "hydra", "tree", False, drafter.taps
        self.compared = 0

    def start(self, request):
        return self.drafter.start(request)

    def observe(self, state, commit):
        self.drafter.observe(state, commit)

    def propose(self, jobs):
        trees = self.drafter.propose(jobs)
        for job, tree in zip(jobs, trees, strict=True):
            below = tree.children()
            for node in range(len(tree)):
                if below[node]:
                    path = [tree.tokens[n] for n in tree.path_to(node)]
                    best = self.guesses(job.request.tokens[:-1], path)
                    assert [tree.tokens[child] for child in below[node]] == best[: len(below[node])]
                    self.compared += 1
        return trees

    @torch.no_grad()
    def guesses(self, seen, path):
        """Best tokens after ``path`` (the root first), from the committed text alone."""
        target = self.drafter.target
        cache = target.new_cache()
        rows = Rows(cache, list(seen), range(-1, len(seen) - 1))
        hidden = target.forward([rows], [target.num_layers]).hidden[target.num_layers]
        normed = self.network.vocabulary.normed(hidden)
        g = self.network.prefix(normed[None])[0] if self.network.prefix is not None else normed
        inputs = torch.cat([g[-1], *target.embedding[path]])
        logits = self.network.vocabulary.one(len(path) - 1, self.network.head(len(path) - 1, inputs[None]))
        return self.network.vocabulary.ids[logits[0].argsort(descending=True)].tolist()


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("choose", ["static", "dynamic"])
def test_nothing_is_left_over_from_earlier_rounds(monkeypatch, prefix, choose):
    for module in ("ventris.models.stages", "ventris.draft.prefix_attention"):
        monkeypatch.setattr(f"{module}.drafting_dtype", lambda device: torch.float32)
    target = random_heads.tiny_target()
    network = random_heads.hydra_heads(target, "tied", 2, prefix, listed=target.vocab_size)
    watched = Recomputing(random_heads.hydra(target, network, choose=choose), network)
    prompts = [[1, 2, 3, 1, 2], [4, 5], list(range(1, 40))]
    run(target, Greedy(), watched, prompts=prompts)
    run(target, Coupled(), watched, prompts=prompts, temperature=1.0, seed=3)
    assert watched.compared > 100
