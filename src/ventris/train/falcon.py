"""Training Falcon by coupled sequential glancing distillation; see :mod:`ventris.draft.falcon`."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ventris.draft.falcon_network import LSTM_LAYERS, FalconNetwork, MixerState, block_ends
from ventris.draft.head_tree import LARGEST_TREE, grow_from_ranks
from ventris.draft.medusa import RANKS
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import NOT_LISTED, Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import embedding_rows
from ventris.draft.vocabulary_head import RowsKind
from ventris.engine.target import Rows
from ventris.model import Model
from ventris.models.config import DecoderConfig
from ventris.train.ahead import Ahead, label_ranks, look_ahead
from ventris.train.distilled import Distilled
from ventris.train.first_weights import passing_weights
from ventris.train.losses import smooth_l1
from ventris.train.objectives import Objective
from ventris.train.run import train_heads
from ventris.train.settings import FalconSettings
from ventris.train.texts import Progress
from ventris.train.trainer import Trained
from ventris.train.windows import Batch

SMALL = 0.02
"""Spread of the first weights that carry nothing."""

GATES = (1.0, -1.0, 0.0, 1.0)
"""First biases of the LSTM's input gate, forget gate, candidate and output gate."""

PASSED = 0.5
"""Size in the first layer's candidate of a feature of size one: on the straight part of tanh."""


def train_falcon(settings: FalconSettings, progress: Progress | None = None, command: str = "") -> Trained:
    """Train Falcon; see :func:`~ventris.train.run.train_heads`."""

    def make(model: Model, config: DecoderConfig, head: TargetHead, shortlist: Shortlist) -> Objective:
        return FalconObjective(model, config, head, shortlist, settings)

    return train_heads(settings, make, progress, command)


class FalconObjective(Distilled[FalconNetwork, FalconSettings]):
    """Coupled sequential glancing distillation (Gao et al. 2025, section 3.3).

    A block of k positions t - k + 1 .. t sees all pairs up to its end and is held to the target's features and
    tokens k places on. A first pass without gradient counts its wrong guesses; as many positions times a factor
    that falls during training get the pair that they are to predict in place of their own, from the beginning
    of blocks drawn at random, and a second pass learns the other positions of these blocks, whose predecessors
    are right now, and all positions of the other blocks.

    Besides the paper: the first block begins at a place drawn for each batch, since blocks end at the last known
    token when it drafts; replaced positions are left out of the loss, since their input holds the answer; the
    hard label is the token of the text, which the target drew itself.
    """

    method = "falcon"

    def __init__(
        self,
        model: Model,
        config: DecoderConfig,
        head: TargetHead,
        shortlist: Shortlist,
        settings: FalconSettings,
    ) -> None:
        rows: RowsKind = "own" if settings.own_rows else "tied" if config.tied_head else "stored"
        network = FalconNetwork(
            PrefixSizes.of(config).stored(),
            settings.block,
            len(shortlist),
            rows,
            settings.recurrent,
            config.embedding_scale,
        )
        network.vocabulary.begin(shortlist, head)
        network.begin(passing_weights(network.config, head))
        size = float(embedding_rows(model.target, shortlist.ids.tolist()).std())
        pass_features_on(network, head.norm, size)
        self.sizes = network.sizes
        super().__init__(network, model.target, head, shortlist, settings)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        settings, k = self.settings, self.settings.block
        features = self.normed(batch)
        length = features.shape[1]
        phase = int(torch.randint(k, (), generator=generator))
        seen = block_ends(length, k, phase).to(features.device)
        ahead = self._blocks(look_ahead(batch, k, self.place), seen, settings.positions, generator)
        noise = 2 * torch.rand(features.shape, generator=generator).to(features) - 1
        pairs = torch.cat([self._following(batch), features + settings.noise * noise], dim=-1)
        learnt = ahead.valid & (ahead.labels != NOT_LISTED)
        share = self._share(batch.number)
        if share:
            right = self._right(pairs, seen, ahead, features)
            glanced = glance(ahead.valid & ~right, share, generator)
            pairs = replaced(pairs, ahead, glanced, k)
            learnt = learnt & ~glanced
        states = self._of_blocks(self.network(pairs, seen), ahead)
        if not bool(learnt.any()):
            return states.new_zeros(())
        wanted = torch.stack([ahead.following(features, place + 1) for place in range(k)])
        chosen = learnt.T
        logits = self.network.vocabulary.one(0, states[chosen])
        labels = F.cross_entropy(logits.float(), ahead.labels.T[chosen])
        tokens = labels
        if self.distribution_loss is not None:
            teacher = wanted[chosen] @ self.teacher.rows.T
            hard = settings.label_share
            tokens = (1 - hard) * self.distribution_loss(logits, teacher) + hard * labels
        return smooth_l1(states[chosen], wanted[chosen]) + settings.token_weight * tokens

    def ranks(self, batch: Batch) -> Tensor:
        seen = block_ends(batch.tokens.shape[1], self.settings.block).to(batch.tokens.device)
        ahead = self._blocks(look_ahead(batch, self.settings.heads, self.place), seen)
        return label_ranks(self.drafted(batch, ahead, seen), ahead, self._logits)

    def measured(self, ranks: Tensor) -> dict[str, Any]:
        tree = grow_from_ranks(ranks, LARGEST_TREE, RANKS)
        return {"tree": {"paths": [list(path) for path in tree.paths], "values": list(tree.values)}}

    @torch.no_grad()
    def drafted(self, batch: Batch, ahead: Ahead, seen: Tensor) -> Tensor:
        """Features of the drafts along the text, ``[heads, n, d]``, as :class:`~ventris.draft.Falcon` makes them.

        The first k come of the target's features; the next ones of these drafts with the text's tokens, and so
        on. Every block of a window is a branch of one tree.
        """
        k, network = self.settings.block, self.network
        decoder, count = network.live_decoder(), len(ahead.at)
        mixed, states = self._mixed_in_blocks(batch)
        windows, length, _ = mixed.shape
        trees = [Rows(decoder.new_cache(), [0] * length, range(-1, length - 1), 0) for _ in range(windows)]
        for rows in trees:
            rows.sees = seen.clamp_max(length - 1).tolist()
        hidden, _ = decoder.run_layers(trees, mixed.flatten(0, 1), 0, 1)
        found = [self._of_blocks(decoder.final_norm(hidden).view(mixed.shape), ahead)]
        block = ahead.at // k
        state: MixerState = None
        if states is not None:
            state = (
                states[0][block, :, ahead.row].transpose(0, 1),
                states[1][block, :, ahead.row].transpose(0, 1),
            )
        last = ahead.at.tolist()
        embedded = self._following(batch)
        for level in range(k, self.settings.heads, k):
            tokens = torch.stack(
                [ahead.following(embedded, level - k + 1 + place) for place in range(k)], dim=1
            )
            pairs = torch.cat([tokens, found[-1].transpose(0, 1)], dim=-1)
            rows, state = network.mix(pairs, state)
            last = self._branch(trees, ahead.row.tolist(), last)
            hidden, _ = decoder.run_layers([tree for tree in trees if tree.tokens], rows.flatten(0, 1), 0, 1)
            found.append(decoder.final_norm(hidden).view(count, k, -1).transpose(0, 1))
        return torch.cat(found)[: self.settings.heads]

    def _branch(self, trees: list[Rows], windows: list[int], last: list[int]) -> list[int]:
        """Hang a block below each of the nodes ``last`` of its window's tree; returns the blocks' last nodes."""
        k, ends = self.settings.block, []
        for window, rows in enumerate(trees):
            start, parents, sees = len(rows.parents), list(rows.parents), []
            for above in (node for node, own in zip(last, windows, strict=True) if own == window):
                first = len(parents)
                parents += [above, *range(first, first + k - 1)]
                sees += [first + k - 1] * k
                ends.append(first + k - 1)
            trees[window] = Rows(rows.cache, [0] * len(sees), parents, start, sees=sees)
        return ends

    def _blocks(
        self, ahead: Ahead, seen: Tensor, most: int | None = None, generator: torch.Generator | None = None
    ) -> Ahead:
        """The positions that end a whole block; at most so many of them, drawn."""
        ends = ((seen[ahead.at] == ahead.at) & (ahead.at >= self.settings.block - 1)).nonzero()[:, 0]
        if most is not None and len(ends) > most:
            ends = ends[torch.randperm(len(ends), generator=generator)[:most].sort().values.to(ends.device)]
        return Ahead(ahead.row[ends], ahead.at[ends], ahead.labels[ends], ahead.valid[ends])

    def _of_blocks(self, rows: Tensor, ahead: Ahead) -> Tensor:
        """The rows of each position's block, ``[B, L, d] -> [k, n, d]``."""
        k = self.settings.block
        return torch.stack([ahead.following(rows, place + 1 - k) for place in range(k)])

    def _following(self, batch: Batch) -> Tensor:
        """E(x_{l+1}) at place l, ``[B, L, d]``."""
        tokens = torch.cat([batch.tokens[:, 1:], batch.tokens[:, -1:]], dim=1)
        return embedding_rows(self.target, tokens.flatten().tolist()).view(*tokens.shape, -1)

    def _mixed_in_blocks(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """What the layer reads of a text, and the LSTM's state behind each whole block.

        Returns:
            ``[B, L, d]``; hidden and cell rows, ``[blocks, layers, B, d]`` each, ``None`` without an LSTM.
        """
        pairs = torch.cat([self._following(batch), self.normed(batch)], dim=-1)
        parts, kept, state = [], [], None
        for part in pairs.split(self.settings.block, dim=1):
            rows, state = self.network.mix(part, state)
            parts.append(rows)
            kept.append(state)
        states = [pair for pair in kept if pair is not None]
        mixed = torch.cat(parts, dim=1)
        if not states:
            return mixed, None
        return mixed, (torch.stack([h for h, _ in states]), torch.stack([c for _, c in states]))

    def _share(self, step: int) -> float:
        """Glanced positions for each wrong guess: falls in a line over the run."""
        settings = self.settings
        done = min(step / settings.steps, 1.0)
        return (
            settings.glancing + (settings.glancing_end - settings.glancing) * done
            if settings.block > 1
            else 0.0
        )

    @torch.no_grad()
    def _right(self, pairs: Tensor, seen: Tensor, ahead: Ahead, features: Tensor) -> Tensor:
        """Which guesses are the target's own first choice, bool ``[n, k]``."""
        self.network.eval()
        states = self._of_blocks(self.network(pairs, seen), ahead)
        self.network.train()
        guesses = self._logits(0, states).argmax(-1)
        wanted = torch.stack([ahead.following(features, place + 1) for place in range(len(states))])
        return (guesses == (wanted @ self.teacher.rows.T).argmax(-1)).T

    def _logits(self, depth: int, states: Tensor) -> Tensor:
        """One head serves all depths."""
        return self.network.vocabulary.one(0, states)


def glance(wrong: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Which positions are replaced: a run from the beginning of each block that is drawn, bool ``[n, k]``.

    As many positions as there are wrong guesses times ``share``, or as blocks have; the last one of a block is
    never replaced, as nothing in the block comes after it.

    Args:
        wrong: Guesses of each block that are not the target's, bool ``[n, k]``.
    """
    count, k = wrong.shape
    wanted = int(share * int(wrong.sum()))
    run = torch.randint(1, k, (count,), generator=generator)
    order = torch.randperm(count, generator=generator)
    drawn = torch.zeros(count, dtype=torch.int64)
    drawn[order] = run[order] * (run[order].cumsum(0) <= wanted)
    return (torch.arange(k) < drawn[:, None]).to(wrong.device)


def replaced(pairs: Tensor, ahead: Ahead, glanced: Tensor, k: int) -> Tensor:
    """The pairs ``[B, L, 2 d]`` with those k places on where ``glanced: [n, k]`` says so."""
    result = pairs.clone()
    for place in range(k):
        chosen = glanced[:, place]
        row, at = ahead.row[chosen], ahead.at[chosen] + place + 1 - k
        result[row, at] = pairs[row, (at + k).clamp_max(pairs.shape[1] - 1)]
    return result


@torch.no_grad()
def pass_features_on(network: FalconNetwork, norm: Tensor, embedded: float) -> None:
    """Let features through LSTM or linear map nearly as they are, and hardly anything else.

    Args:
        norm: Weight of the target's final norm: a feature is that times numbers of size one, ``[d]``.
        embedded: Size of the embedding's numbers.
    """
    d = len(norm)
    norm = norm.to(next(network.parameters()))
    through = torch.diag(torch.where(norm.abs() > 1e-3, 1 / norm, 0))
    sizes = torch.cat([norm.new_full((d,), embedded), norm.square().mean().sqrt().expand(d)])
    if network.fuse is not None:
        network.fuse.weight.copy_(SMALL * torch.randn(network.fuse.weight.shape) / sizes)
        network.fuse.weight[:, d:] += through
        network.fuse.bias.zero_()
    if network.lstm is None:
        return
    for layer in range(LSTM_LAYERS):
        read, recurrent, bias, rest = (
            network.lstm.get_parameter(f"{name}_l{layer}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        read.copy_(SMALL * torch.randn(read.shape))
        recurrent.copy_(SMALL * torch.randn(recurrent.shape))
        bias.copy_(torch.tensor(GATES).repeat_interleave(d))
        rest.zero_()
        candidate = read[2 * d : 3 * d]
        if layer:
            candidate += torch.eye(d) / torch.tensor(GATES[0]).sigmoid() / torch.tensor(GATES[3]).sigmoid()
        else:
            read.div_(sizes)
            candidate[:, d:] += PASSED * through
