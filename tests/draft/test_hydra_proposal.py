"""Hydra's incremental proposal equals one that recomputes everything from the text."""

from __future__ import annotations

import pytest
import random_heads
import torch
from rehearsing import Watched, branches

from ventris.testing.checks import run
from ventris.verify.match import Coupled, Greedy


class Recomputing(Watched):
    """Passes on to Hydra and recomputes each of its trees by brute force."""

    def compare(self, job, tree):
        for path, children in branches(tree):
            best = self.guesses(job.request.tokens[:-1], path)
            assert [tree.tokens[child] for child in children] == best[: len(children)]
            self.compared[len(path)] += 1

    def guesses(self, seen, path):
        """Best tokens after ``path`` (the root first), from the committed text alone."""
        target = self.drafter.target
        normed = self.network.vocabulary.normed(self.target_rows(seen, target.num_layers))
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
    assert watched.compared.total() > 100
