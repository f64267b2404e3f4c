"""Training Falcon by coupled sequential glancing distillation; see :mod:`ventris.draft.falcon`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ventris.draft.falcon_network import LSTM_LAYERS, FalconNetwork, MixerState, block_ends
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import NOT_LISTED
from ventris.draft.target_sketch import embedding_rows
from ventris.draft.vocabulary_head import trained_rows
from ventris.engine.target import Rows
from ventris.train.ahead import Ahead, label_ranks, look_ahead, measured_tree
from ventris.train.first_weights import passing_weights
from ventris.train.losses import cross_entropy, smooth_l1
from ventris.train.objectives import AheadObjective, Lesson
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
    return train_heads(settings, FalconObjective, progress, command)


class FalconObjective(AheadObjective[FalconNetwork, FalconSettings]):
    """Coupled sequential glancing distillation (Gao et al. 2025, section 3.3).

    A block of k positions t - k + 1 .. t sees all pairs up to its end and is held to the target's features
    and tokens k places on. A first pass without gradient counts the wrong guesses. As many positions times a
    factor that falls during training get the pair k places on in place of their own, a run from the beginning
    of each block that is drawn. So the others of such a block see what really comes before their tokens, and
    the second pass learns them, and all of the other blocks.

    Besides the paper: the first block begins at a place drawn for each batch, since in drafting blocks end at
    the last known token; replaced positions are left out of the loss, since their input holds the answer; the
    hard label is the token of the text, which the target said itself.
    """

    method = "falcon"

    def __init__(self, lesson: Lesson, settings: FalconSettings) -> None:
        network = FalconNetwork(
            PrefixSizes.of(lesson.config).stored(),
            settings.block,
            len(lesson.shortlist),
            trained_rows(settings.own_rows, lesson.config.tied_head),
            settings.mixer == "lstm",
            lesson.config.embedding_scale,
        )
        network.vocabulary.begin(lesson.shortlist, lesson.head)
        network.begin(passing_weights(network.config, lesson.head))
        size = float(embedding_rows(lesson.model.target, lesson.shortlist.ids.tolist()).std())
        pass_features_on(network, lesson.head.norm, size)
        super().__init__(network, lesson, settings, settings.block, decay=1.0)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        settings, k = self.settings, self.settings.block
        features = self.normed(batch)
        phase = int(torch.randint(k, (), generator=generator))
        seen = block_ends(features.shape[1], k, phase).to(features.device)
        ahead = self._blocks(look_ahead(batch, k, self.place), seen, settings.positions, generator)
        noise = 2 * torch.rand(features.shape, generator=generator).to(features) - 1
        pairs = torch.cat([self._following(batch), features + settings.noise * noise], dim=-1)
        wanted = torch.stack([ahead.following(features, place + 1) for place in range(k)])
        learnt = ahead.valid & (ahead.labels != NOT_LISTED)
        if share := self._share(batch.number):
            wrong = ahead.valid & ~self._right(pairs, seen, ahead, wanted)
            glanced = glance(wrong, share, generator)
            pairs = replaced(pairs, ahead, glanced)
            learnt = learnt & ~glanced
        states = self._of_blocks(self.network(pairs, seen), ahead)
        if not bool(learnt.any()):
            return states.new_zeros(())
        found, wanted = states[learnt.T], wanted[learnt.T]
        return smooth_l1(found, wanted) + settings.token_weight * self._tokens(
            found, wanted, ahead.labels.T[learnt.T]
        )

    def _tokens(self, found: Tensor, wanted: Tensor, labels: Tensor) -> Tensor:
        """The loss of the tokens that come of features ``[n, d]``."""
        logits = self.logits(0, found)
        hard = cross_entropy(logits, labels)
        if self.distribution_loss is None:
            return hard
        soft = self.distribution_loss(logits, wanted @ self.teacher.rows.T)
        return (1 - self.settings.label_share) * soft + self.settings.label_share * hard

    def ranks(self, batch: Batch) -> Tensor:
        seen = block_ends(batch.tokens.shape[1], self.settings.block).to(batch.tokens.device)
        ahead = self._blocks(look_ahead(batch, self.settings.heads, self.place), seen)
        return label_ranks(self.states(batch, ahead, self.settings.heads), ahead, self.logits)

    def measured(self, ranks: Tensor) -> dict[str, Any]:
        return measured_tree(ranks)

    @torch.no_grad()
    def states(self, batch: Batch, ahead: Ahead, depths: int) -> Tensor:
        """Features of drafts along the text from ends of blocks, as :class:`~ventris.draft.Falcon` has them.

        The first k come of the target's features; the next ones of these drafts, with the text's tokens, and
        so on. All blocks of a window are branches of one tree.
        """
        k, network, decoder = self.settings.block, self.network, self.network.live_decoder()
        embedded = self._following(batch)
        mixed, kept = self._in_blocks(torch.cat([embedded, self.normed(batch)], dim=-1))
        windows, length, _ = mixed.shape
        seen = block_ends(length, k).clamp_max(length - 1).tolist()
        trees = [
            Rows(decoder.new_cache(), [0] * length, range(-1, length - 1), sees=seen) for _ in range(windows)
        ]
        hidden, _ = decoder.run_layers(trees, mixed.flatten(0, 1), 0, 1)
        found = [self._of_blocks(decoder.final_norm(hidden).view(mixed.shape), ahead)]
        state: MixerState = None
        if kept is not None:
            state = kept[0][:, ahead.row, ahead.at // k], kept[1][:, ahead.row, ahead.at // k]
        last = ahead.at.tolist()
        for level in range(1, depths - k + 1, k):
            tokens = torch.stack([ahead.following(embedded, level + place) for place in range(k)], dim=1)
            mixed, state = network.mix(torch.cat([tokens, found[-1].transpose(0, 1)], dim=-1), state)
            trees, last = _branches(trees, ahead.row.tolist(), last, k)
            grown = [rows for rows in trees if rows.tokens]
            hidden, _ = decoder.run_layers(grown, mixed.flatten(0, 1), 0, 1)
            found.append(decoder.final_norm(hidden).view(mixed.shape).transpose(0, 1))
        return torch.cat(found)[:depths]

    def logits(self, depth: int, states: Tensor) -> Tensor:
        """One head serves all depths."""
        return self.network.vocabulary.one(0, states)

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

    def _in_blocks(self, pairs: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """What the layer reads of a text, ``[B, L, d]``, and the LSTM's state behind each block.

        Returns:
            Hidden and cell rows, ``[layers, B, blocks, d]`` each; ``None`` without an LSTM.
        """
        parts, kept = [], []
        state: MixerState = None
        for part in torch.split(pairs, self.settings.block, dim=1):
            rows, state = self.network.mix(part, state)
            parts.append(rows)
            if state is not None:
                kept.append(state)
        mixed = torch.cat(parts, dim=1)
        if not kept:
            return mixed, None
        return mixed, (torch.stack([h for h, _ in kept], dim=2), torch.stack([c for _, c in kept], dim=2))

    def _share(self, step: int) -> float:
        """Glanced positions for each wrong guess: falls in a line over the run."""
        settings = self.settings
        done = min(step / settings.steps, 1.0)
        fallen = settings.glancing + (settings.glancing_end - settings.glancing) * done
        return fallen if settings.block > 1 else 0.0

    @torch.no_grad()
    def _right(self, pairs: Tensor, seen: Tensor, ahead: Ahead, wanted: Tensor) -> Tensor:
        """Which guesses are the target's own first choice, bool ``[n, k]``."""
        self.network.eval()
        states = self._of_blocks(self.network(pairs, seen), ahead)
        self.network.train()
        return (self.logits(0, states).argmax(-1) == (wanted @ self.teacher.rows.T).argmax(-1)).T


def glance(wrong: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Which positions are replaced: a run from the beginning of each block that is drawn, bool ``[n, k]``.

    As many positions as there are wrong guesses times ``share``, if the blocks have so many; the last one of
    a block is never replaced, as nothing in the block comes after it.

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


def replaced(pairs: Tensor, ahead: Ahead, glanced: Tensor) -> Tensor:
    """The pairs ``[B, L, 2 d]`` with those k places on where ``glanced: [n, k]`` says so."""
    result, k = pairs.clone(), glanced.shape[1]
    for place in range(k):
        row, at = ahead.row[glanced[:, place]], ahead.at[glanced[:, place]] + place + 1 - k
        result[row, at] = pairs[row, (at + k).clamp_max(pairs.shape[1] - 1)]
    return result


def _branches(
    trees: Sequence[Rows], windows: Sequence[int], last: Sequence[int], k: int
) -> tuple[list[Rows], list[int]]:
    """A block of k nodes below each of the nodes ``last`` of its window's tree, and the last node of each."""
    grown, ends = [], []
    for window, rows in enumerate(trees):
        start, parents, sees = len(rows.parents), list(rows.parents), []
        for above, own in zip(last, windows, strict=True):
            if own == window:
                first = len(parents)
                parents += [above, *range(first, first + k - 1)]
                ends.append(first + k - 1)
                sees += [ends[-1]] * k
        grown.append(Rows(rows.cache, [0] * len(sees), parents, start, sees=sees))
    return grown, ends


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
