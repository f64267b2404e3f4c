"""Big Little Decoder as a whole, on two real networks: rolled back caches say what fresh ones say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import ventris
from ventris.draft import DraftModel
from ventris.engine.target import Rows, Target
from ventris.models.torch_decoder import TorchDecoder

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_model import write_tiny_model

PROMPT = [1, 40, 50, 60, 2]
TOKENS, DEPTH = 60, 10


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchDecoder, ventris.Model]:
    """A small model that often disagrees with the large one: its weights, shaken."""
    folder = write_tiny_model(tmp_path_factory.mktemp("pair") / "tiny")
    large = ventris.load(str(folder), "float32", "torch", "cpu")
    random = torch.Generator().manual_seed(5)
    weights = {
        name: tensor + 0.08 * torch.randn(tensor.shape, generator=random)
        for name in large.source.weights
        for tensor in [large.source.weights[name].float()]
    }
    return TorchDecoder(large.source.config, weights), large


def fresh(target: Target, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities of the next token by a cache that nothing was ever dropped from."""
    cache = target.new_cache(len(tokens))
    rows = Rows(cache, tokens, range(-1, len(tokens) - 1), wanted=(len(tokens) - 1,))
    logits = target.forward([rows]).logits[0][0]
    cache.release()
    return logits.float().log_softmax(-1)


def by_the_paper(small: Target, large: Target, confidence: float, nats: float) -> tuple[list[int], int]:
    """The text, and the calls of the large model; every distribution computed from scratch."""
    said: list[int] = []
    calls = 0
    while len(said) < TOKENS:
        draft: list[int] = []
        while len(draft) < min(DEPTH, TOKENS - len(said) - 1):
            row = fresh(small, [*PROMPT, *said, *draft])
            if float(row.max().exp()) < confidence:
                break
            draft.append(int(row.argmax()))
        calls += 1
        for place in range(len(draft) + 1):
            row = fresh(large, [*PROMPT, *said])
            best = int(row.argmax())
            if place == len(draft) or (draft[place] != best and float(-row[draft[place]]) > nats):
                said.append(best)
                break
            said.append(draft[place])
    return said, calls


@pytest.mark.parametrize(("confidence", "nats"), [(0.0, 1e9), (0.0, 2.0), (0.3, 1.0), (0.2, 4.0), (0.3, 0.0)])
def test_text_and_calls_are_those_of_the_papers_loop(pair, confidence, nats):
    small, large = pair
    done = large.generate(
        PROMPT,
        draft=DraftModel(small, depth=64),
        policy=f"confidence-stop:{confidence},depth={DEPTH}",
        verifier=f"threshold-rollback:{nats}",
        max_new_tokens=TOKENS,
        ignore_eos=True,
        trace=True,
    )
    assert (done.tokens, done.stats.steps) == by_the_paper(small, large.target, confidence, nats)
    if (confidence, nats) == (0.2, 4.0):  # the paper's way of working: drafts of all lengths, some cut short
        assert {len(step.tokens) - 1 for step in done.trace.steps} > {0, 1, 2, 3, 5, 6}
        assert 0 < done.stats.accepted < done.stats.drafted
