"""OmniDraft: a draft model with another vocabulary than the target, that learns from every verification.

Ramakrishnan, Yuan, Zhuo, Feng, Lin, Su and Zhang 2025, arXiv 2507.02659. Three parts:

- *Translation*: drafted ids become target tokens by their bytes, one by one, or several at once where the
  target has been seen to write them as one token (the n-gram cache).
- *Online distillation*: what the target says of each token moves the draft model towards it, between rounds.
- *Adaptive length*: a head estimates how likely each draft is accepted; drafting stops where too many are
  likely to be refused.

Exact with every exact verifier, at every moment of learning: a proposal is a point mass to them, whatever
process it came from. The paper's own rule is the verifier ``translated-rejection``, which is not exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import exp, prod
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ventris.draft.omnidraft.byte_map import ByteMap
from ventris.draft.omnidraft.learner import Lesson
from ventris.draft.omnidraft.load import load_parts
from ventris.draft.omnidraft.network import LengthHead
from ventris.draft.omnidraft.options import OmniDraftOptions
from ventris.draft.omnidraft.session import Draft, Session
from ventris.draft.omnidraft.teaching import Teaching
from ventris.draft.omnidraft.translator import Translator, Word
from ventris.engine.errors import BadInput
from ventris.engine.footprint import LOGIT_BYTES
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.randomness import Purpose
from ventris.engine.sampling import COLDEST, Row, distribution
from ventris.engine.stream import EMBEDDED, Stream, forward
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree
from ventris.models.native.rows import most_probable

if TYPE_CHECKING:
    from ventris.parts import Workshop

ROUNDS = 16
"""Verifications of one request between two steps of learning."""


@dataclass(slots=True)
class _Growth:
    """A draft under construction.

    Attributes:
        chain: The root and the drafted ids.
        laws: What each drafted id was drawn from, ``[draft_size]``; for drawn drafts alone.
        drawing: Whether ids are drawn.
    """

    job: DraftJob
    chain: TokenTree
    draft: Draft
    drawing: bool
    going: bool
    laws: list[Tensor] = field(default_factory=list)

    @property
    def session(self) -> Session:
        return cast(Session, self.job.state)

    @property
    def stream(self) -> Stream:
        return cast(Stream, self.session.stream)

    @property
    def limit(self) -> int:
        """Target tokens that may be proposed."""
        return min(self.job.budget.nodes, self.job.budget.depth)


class OmniDraft:
    """Drafts for a target of any vocabulary, and learns from what the target makes of it.

    Args:
        model: The draft model.
        translator: From its vocabulary to the target's.
        teaching: What is learnt, and when.
        depth: Draft tokens ahead at most.
        stop: Chance that something was refused beyond which no more is drafted; 1 for a fixed length.
        draw: Whether tokens are drawn at a temperature above 0; otherwise the best one is chosen there too.
        merge: Whether mergers are learnt.
        rounds: Verifications of one request between two steps of learning.
    """

    name = "omnidraft"
    shape = "chain"
    draws = False
    taps: Sequence[int] = ()
    Options = OmniDraftOptions

    def __init__(
        self,
        model: Target,
        translator: Translator,
        teaching: Teaching,
        depth: int = 6,
        stop: float = 0.6,
        draw: bool = False,
        merge: bool = True,
        rounds: int = ROUNDS,
    ) -> None:
        self.model = model
        self.translator = translator
        self.teaching = teaching
        self.depth = depth
        self.stop = stop
        self.draw = draw
        self.merge = merge
        self.rounds = rounds
        self._head: LengthHead | None = teaching.head

    @classmethod
    def build(cls, options: OmniDraftOptions, workshop: Workshop) -> OmniDraft:
        """Load the draft model and what it has learnt; without a target nothing is loaded."""
        if workshop.target is None:
            return cls.__new__(cls)
        if workshop.tokenizer is None:
            raise BadInput("drafter 'omnidraft' translates by bytes, and this target has no tokenizer")
        model, translator, teaching = load_parts(options, workshop.target, workshop.tokenizer)
        settings = options.model_dump(include={"depth", "stop", "draw", "merge"})
        return cls(model, translator, teaching, **settings)

    @property
    def map(self) -> ByteMap:
        """The two vocabularies."""
        return self.translator.map

    @property
    def models(self) -> Sequence[Target]:
        """The draft model, for a memory budget."""
        return [self.model]

    def start(self, request: RequestView) -> Session:
        if EMBEDDED in request.prompt:
            return Session(request, None, [])
        if self.merge:
            # An answer takes up words of its prompt, and there the target's spelling of them is seen already.
            self._see(dict.fromkeys(request.prompt))
        # A text must have a beginning to go on from; a prompt of unused ids has none.
        ids = self.map.read(request.prompt) or [self.map.draft.bos_id or 0]
        return Session(request, request.stream(self.model, self.name, ids), ids)

    # Drafting.

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        # Between rounds is the only place where weights change.
        if (learnt := self.teaching.take()) is not None:
            self.model, self._head = learnt
        growing = [self._begin(job) for job in jobs]
        active = [growth for growth in growing if growth.going]
        last = self.model.num_layers
        while active:
            results = forward(
                [(g.stream, g.stream.rows(g.chain, [len(g.chain) - 1]), (last,)) for g in active]
            )
            for growth, result in zip(active, results, strict=True):
                self._extend(growth, result.logits[0].detach().cpu().numpy(), result.hidden[last][-1])
            active = [growth for growth in active if growth.going]
        return [self._proposal(growth) for growth in growing]

    def _begin(self, job: DraftJob) -> _Growth:
        session: Session = job.state
        session.draft = draft = Draft()
        root = job.root
        drawing = self.draw and not job.request.sampling.greedy
        stream = session.stream
        if stream is not None:
            stream.discard()
            # Rows of earlier weights stay in the cache: near enough to draft from, and drafts need no more.
            stream.target = self.model
            context = self.model.context_length
            if stream.cache.length + len(stream.pending) + self.depth > context:
                session.reread(max(context // 2 - self.depth, 1))
            root = stream.pending[-1]
        going = stream is not None and min(job.budget.nodes, job.budget.depth) > 0
        return _Growth(job, TokenTree.root(root), draft, drawing, going)

    def _extend(self, growth: _Growth, row: Row, hidden: Tensor) -> None:
        """Read what the model says after the last id, and draft one more unless enough is drafted."""
        draft = growth.draft
        if draft.ids:
            draft.rows.append(hidden.detach().cpu())
        growth.going = self._goes_on(growth, row)
        if not growth.going:
            return
        if growth.drawing:
            law = distribution(row, growth.job.request.sampling)
            growth.laws.append(law)
            id = growth.job.request.randomness(Purpose.DRAFT, len(draft.ids)).categorical(law)
            share = float(law[id])
        else:
            ((id, log_share),) = most_probable(row, 1)
            share = exp(log_share)
        draft.ids.append(id)
        draft.shares.append(share)
        growth.chain.add(id, len(growth.chain) - 1)
        draft.words = self.translator.translate(draft.ids)
        # Once the draft is as long as it may be, nothing more need be read.
        growth.going = len(draft.ids) < self.depth and self._is_open(growth)

    def _is_open(self, growth: _Growth) -> bool:
        """Whether more could be proposed."""
        draft, limit = growth.draft, growth.limit
        if any(word.token in growth.job.request.end_ids for word in draft.words):
            return False
        if len(draft.words) < limit:
            return self.translator.may_go_on(draft.ids, draft.words)
        # The last word that fits may yet turn out to be the beginning of a longer one.
        return self.translator.mergers.begins(draft.ids[draft.words[limit - 1].start :])

    def _goes_on(self, growth: _Growth, row: Row) -> bool:
        """Whether the next id is worth drafting, said before it is known."""
        budget = growth.job.budget
        if budget.confidence > 0 and exp(most_probable(row, 1)[0][1]) < budget.confidence:
            return False
        kept = 1.0
        for chance in self._chances(growth.draft):
            kept *= chance
        return 1 - kept <= self.stop

    def _chances(self, draft: Draft) -> list[float]:
        """For each word that has been read the estimate that it is accepted once those before it are."""
        places = [word.stop - 1 for word in draft.words if word.stop <= len(draft.rows)]
        if not places or self._head is None or self.stop == 1:
            return []
        with torch.no_grad():
            logits = self._head(torch.stack([draft.rows[place] for place in places]))
        return logits.sigmoid().tolist()  # type: ignore[no-any-return]

    def _proposal(self, growth: _Growth) -> TokenTree:
        """The translated draft as a chain."""
        draft = growth.draft
        tree = TokenTree([growth.job.root], [-1], [1.0], self.name)
        del draft.words[growth.limit :]
        for word in draft.words:
            self._estimate(growth, tree, word.start)
            tree.add(word.token, len(tree) - 1, prod(draft.shares[word.start : word.stop]))
        done = draft.words[-1].stop if draft.words else 0
        if len(draft.words) < growth.limit and done < len(draft.ids):
            # What was drawn here cannot be proposed, and that says something of what was not drawn.
            self._estimate(growth, tree, done)
        return tree

    def _estimate(self, growth: _Growth, tree: TokenTree, start: int) -> None:
        if growth.drawing:
            size = growth.job.request.target.vocab_size
            tree.estimates[len(tree) - 1] = self.translator.law(start, growth.draft.ids, growth.laws, size)

    # Learning.

    def observe(self, state: Session, commit: Commit) -> None:
        if commit.tree is None or commit.next_token is None or state.stream is None:
            return
        tokens = [*(commit.tree.tokens[node] for node in commit.path[1:]), commit.next_token]
        matched = state.matched(tokens)
        if self.merge:
            self._merge(state.draft, matched, tokens)
        spelled = [tuple(state.draft.ids[word.start : word.stop]) for word in matched]
        spelled += [self.map.spell(token) for token in tokens[len(matched) :]]
        if self.teaching.learner is not None and commit.logits is not None:
            self._note(state, commit, matched, tokens, spelled)
        state.advance([id for ids in spelled for id in ids])
        if state.rounds >= self.rounds:
            self._teach(state)

    def _see(self, tokens: Iterable[int]) -> None:
        """Learn the mergers that tokens of the target show, as the draft model spells them."""
        for token in tokens:
            self.translator.mergers.learn(self.map.spell(token), token)

    def _merge(self, draft: Draft, matched: Sequence[Word], tokens: Sequence[int]) -> None:
        """Learn the mergers that emitted tokens show: as they are spelled, and as they were drafted.

        A draft that was right as text and refused, because the target writes it as one token, is the case
        that the cache is for.
        """
        mergers = self.translator.mergers
        self._see(tokens)
        if len(matched) == len(tokens):
            return
        refused, token = draft.ids[matched[-1].stop if matched else 0 :], tokens[len(matched)]
        said = self.map.target.token_bytes(token)
        for count in range(2, min(len(refused), mergers.longest) + 1):
            if self.map.bytes_of(refused[:count]) == said:
                mergers.learn(tuple(refused[:count]), token)

    def _note(
        self,
        state: Session,
        commit: Commit,
        matched: Sequence[Word],
        tokens: Sequence[int],
        spelled: Sequence[tuple[int, ...]],
    ) -> None:
        """Remember what the target said of each token and each judged draft, as far as it fits."""
        assert commit.logits is not None
        if not state.book(len(commit.path) * commit.logits.shape[-1] * LOGIT_BYTES):
            self._teach(state)
            return
        logits = commit.logits[list(commit.path)].detach().float().cpu()
        place = len(state.ids)
        for token, ids, row in zip(tokens, spelled, logits, strict=True):
            if ids and place > 0:
                state.lessons.append(Lesson(place, place + len(ids), token))
                state.logits.append(row)
            place += len(ids)
        # The first draft that did not match was judged too, where the verifier got as far as that.
        judged = state.draft.words[: min(len(matched) + 1, len(commit.path))]
        for number, (word, node) in enumerate(zip(judged, commit.path, strict=False)):
            if word.stop <= len(state.draft.rows):
                state.rows.append(state.draft.rows[word.stop - 1])
                estimate = commit.tree.estimates.get(node) if commit.tree is not None else None
                drawn_with = 1.0 if estimate is None else float(estimate[word.token])
                state.chances.append(
                    float(number < len(matched))
                    if state.request.sampling.greedy
                    else _chance(logits[number], word.token, drawn_with, state.request.sampling.temperature)
                )
        state.rounds += 1

    def _teach(self, state: Session) -> None:
        given = state.passage()
        if given is not None:
            self.teaching.give(*given)

    def finish(self, state: Session) -> None:
        """Give the draft model's cache back, and learn from what is left."""
        self._teach(state)
        self.teaching.keep()
        if state.stream is not None:
            state.stream.cache.release()


def _chance(logits: Tensor, token: int, drawn_with: float, temperature: float) -> float:
    """How likely a draft is accepted: min(1, p/q'), or p for one that was chosen.

    Warps that cut the distribution and guides are left out; the head needs no more than an estimate.
    """
    p = float((logits / max(temperature, COLDEST)).softmax(-1)[token])
    return min(1.0, p / drawn_with) if drawn_with > 0 else 1.0
