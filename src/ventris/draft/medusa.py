"""Medusa: heads on the last hidden state guess several tokens ahead, each without seeing the others' guesses.

Cai et al. 2024, arXiv 2401.10774. With h_t the final-normed last hidden row, head k of K predicts x_{t+1+k}:

    z = h_t + SiLU(A_k h_t + b_k),   logits_k = W z

A_k starts at zero, so at first every head is the target's own. W is the target's head, frozen ("tied" or
"stored"), or a copy that each head trains for itself ("own", the paper's form); either way only over the
shortlist.

Exact with every exact verifier: drafts are chosen and not drawn, and the target decides on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from ventris.draft.checkpoint import HeadCheckpoint, find_checkpoint
from ventris.draft.head_tree import LARGEST_TREE, grow_from_accuracies
from ventris.draft.vocabulary_head import PackedRows, RowsKind, VocabularyHead, drafting_dtype
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree
from ventris.models.torch_decoder import Linear

if TYPE_CHECKING:
    from ventris.model import Model
    from ventris.parts import Workshop

RANKS = 10
"""Guesses of a head that may enter the tree."""


class MedusaHeads(nn.Module):
    """The network, as it is trained and stored.

    Args:
        heads: K, tokens guessed after the one that the target itself predicts.
        hidden: Width d of the target.
        shortlist: Number of listed tokens.
        rows: Where the vocabulary rows come from.
        layers: Residual blocks a head, each with weights of its own.
        norm_eps: Epsilon of the target's final norm.
        embedding_scale: What the target multiplies its embeddings with; matters to tied rows only.
    """

    def __init__(
        self,
        heads: int,
        hidden: int,
        shortlist: int,
        rows: RowsKind,
        layers: int = 1,
        norm_eps: float = 1e-5,
        embedding_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.sizes: dict[str, Any] = {
            "heads": heads,
            "hidden": hidden,
            "shortlist": shortlist,
            "rows": rows,
            "layers": layers,
            "norm_eps": norm_eps,
            "embedding_scale": embedding_scale,
        }
        self.weight = nn.Parameter(torch.zeros(layers, heads, hidden, hidden))
        self.bias = nn.Parameter(torch.zeros(layers, heads, 1, hidden))
        self.vocabulary = VocabularyHead(heads, hidden, shortlist, rows, norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Head states z of final-normed rows, ``[n, d] -> [K, n, d]``."""
        z = hidden.expand(self.weight.shape[1], -1, -1)
        for weight, bias in zip(self.weight, self.bias, strict=True):
            z = z + F.silu(z @ weight.transpose(-1, -2) + bias)
        return z


class _PackedHeads:
    """The same network for drafting; the first blocks of all heads are one matrix: they read one row."""

    def __init__(self, network: MedusaHeads, device: torch.device) -> None:
        self.dtype = drafting_dtype(device)
        self.vocabulary = network.vocabulary.to(device)
        first, *rest = network.weight.detach().to(device, self.dtype)
        first_bias, *rest_bias = network.bias.detach().to(device, self.dtype)
        self.heads = len(first)
        self.first = Linear(first.flatten(0, 1), first_bias.flatten())
        self.rest = [
            [Linear(matrix, shift[0]) for matrix, shift in zip(weight, bias, strict=True)]
            for weight, bias in zip(rest, rest_bias, strict=True)
        ]
        self.rows = PackedRows(network.vocabulary, self.dtype, device)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits over the shortlist of the target's last-layer outputs, ``[n, d] -> [K, n, shortlist]``."""
        h = self.vocabulary.normed(hidden).to(self.dtype)
        z = h[:, None] + F.silu(self.first(h)).view(len(h), self.heads, -1)
        z = z.transpose(0, 1)
        for layer in self.rest:
            z = torch.stack([part + F.silu(block(part)) for block, part in zip(layer, z, strict=True)])
        return self.rows.all_heads(z)


@dataclass(slots=True)
class _LastRow:
    """The target's last-layer output at the last committed position that it has seen."""

    hidden: Tensor | None = None


class Medusa:
    """Drafts with Medusa heads: one pass over all heads at one position, then a tree from their best guesses.

    Args:
        target: What it drafts for.
        network: The heads.
        accuracies: How often each head's rank-i guess was right on held-out text, ``[K, ranks]``.
        nodes: Drafted tokens at most.
        tree: ``"static"``: one tree for all steps, the best one by the accuracies, which are its confidences.
            ``"dynamic"``: the best tree of each step by the heads' probabilities.
    """

    name = "medusa"
    shape = "tree"
    draws = False

    class Options(BaseModel):
        """Options of the Medusa drafter."""

        checkpoint: str | None = Field(
            None, description="folder; the one shipped for the target if not given"
        )
        nodes: int = Field(24, ge=1, le=LARGEST_TREE, description="drafted tokens at most")
        tree: Literal["static", "dynamic"] = Field(
            "static", description="static: from measured accuracies; dynamic: from each step's probabilities"
        )

    def __init__(
        self,
        target: Target,
        network: MedusaHeads,
        accuracies: Sequence[Sequence[float]],
        nodes: int = 24,
        tree: Literal["static", "dynamic"] = "static",
    ) -> None:
        self.target = target
        self.taps: Sequence[int] = (target.num_layers,) if target is not None else ()
        self.nodes = nodes
        self.dynamic = tree == "dynamic"
        if target is not None:
            self._heads = _PackedHeads(network, target.device)
            self._ids = network.vocabulary.ids.long().to(target.device)
            ranked = [row[: len(self._ids)] for row in accuracies]
            self._static = grow_from_accuracies(ranked, LARGEST_TREE)
            self._confidences = self._static.confidences()

    @classmethod
    def load(cls, model: Model | Target, checkpoint: str | Path | None = None, **settings: Any) -> Medusa:
        """Heads from a folder, or those shipped for the model.

        Raises:
            BadInput: if there are none, or they belong to another target.
        """
        target = cast(Target, getattr(model, "target", model))
        tokenizer = getattr(getattr(model, "tokenizer", None), "fingerprint", "")
        folder = find_checkpoint("medusa", target, None if checkpoint is None else str(checkpoint))
        stored = HeadCheckpoint.load(folder, "medusa")
        stored.target.check(target, f"the Medusa checkpoint {folder}", tokenizer)
        network = MedusaHeads(**stored.sizes)
        stored.fill(network)
        network.vocabulary.read_tied_rows(target, stored.sizes["embedding_scale"])
        return cls(target, network, stored.measured["accuracies"], **settings)

    @classmethod
    def build(cls, options: Options, workshop: Workshop) -> Medusa:
        """Load the heads; without a target only what the drafts are like is known."""
        settings = options.model_dump(exclude={"checkpoint"})
        if workshop.target is None:
            return cls(cast(Target, None), cast(MedusaHeads, None), (), **settings)
        return cls.load(workshop.target, options.checkpoint, **settings)

    def start(self, request: RequestView) -> _LastRow:
        return _LastRow()

    def observe(self, state: _LastRow, commit: Commit) -> None:
        # The heads run here at no row but the last one, and only if a draft is asked for: see propose.
        state.hidden = commit.hidden[self.target.num_layers][-1]

    @torch.no_grad()
    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        able = [
            job
            for job in jobs
            if job.state.hidden is not None and min(job.budget.nodes, job.budget.depth) > 0
        ]
        planted: dict[int, TokenTree] = {}
        if able:
            logits = self._heads.logits(torch.stack([job.state.hidden for job in able]))
            scores = logits.float().softmax(-1) if self.dynamic else logits
            top = scores.topk(min(RANKS, len(self._ids)), dim=-1)
            guesses = self._ids[top.indices].transpose(0, 1).tolist()
            chances = top.values.transpose(0, 1).tolist() if self.dynamic else guesses
            for job, guess, chance in zip(able, guesses, chances, strict=True):
                planted[id(job)] = self._plant(job, guess, chance)
        return [planted.get(id(job)) or TokenTree([job.root], [-1], [1.0], self.name) for job in jobs]

    def _plant(self, job: DraftJob, guesses: list[list[int]], chances: list[list[float]]) -> TokenTree:
        """The tree of one request from its heads' guesses, ``[K, ranks]`` each."""
        nodes, depth = min(job.budget.nodes, self.nodes), job.budget.depth
        chosen, confidences = self._static, self._confidences
        if self.dynamic:
            chosen = grow_from_accuracies(chances, nodes, depth)
            confidences = chosen.confidences()
        tree = TokenTree([job.root], [-1], [1.0], self.name)
        place: dict[tuple[int, ...], int] = {(): 0}
        for path, confidence in zip(chosen.paths, confidences, strict=True):
            parent = place.get(path[:-1])
            if parent is None or len(path) > depth or (parent and tree.tokens[parent] in job.request.end_ids):
                continue
            if len(tree) > nodes:
                break
            place[path] = tree.add(guesses[len(path) - 1][path[-1]], parent, confidence)
        return tree
