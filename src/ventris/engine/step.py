"""One decoding step over many requests: plan, draft, score, verify, commit.

Plain autoregressive decoding is this step with trees that are bare roots; there is no second path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from ventris.engine.parts import (
    NO_DRAFT,
    Budget,
    Commit,
    DraftCall,
    Drafter,
    DraftJob,
    DraftRecord,
    GuideState,
    Load,
    Needs,
    RequestView,
)
from ventris.engine.request import Completion, Request, Stats, TokenLogprob
from ventris.engine.sampling import SamplingState, log_probability, most_probable
from ventris.engine.stream import ForwardResult, Stream, catch_up, forward
from ventris.engine.target import Rows
from ventris.engine.text import Detokenizer, StopMatcher
from ventris.engine.tree import TokenTree
from ventris.engine.walk import Walk

PARTS = ("draft", "target", "guide", "verify", "other")


@dataclass(slots=True)
class Running:
    """A request in the engine, with everything that is remembered about it."""

    request: Request
    view: RequestView
    stream: Stream
    sampling: SamplingState
    completion: Completion
    guides: list[tuple[str, GuideState]]
    drafter: Drafter | None
    """That of the request; ``None`` also where its cache found no room."""
    draft_state: Any
    record: DraftRecord
    detokenizer: Detokenizer | None
    stops: StopMatcher
    admitted: float
    scratch: int
    """Rows that the cache holds for a tree besides those of the whole text."""
    piece: str = ""
    """Text that nobody has been told yet; so are the new tokens, and where they came from."""
    new_tokens: list[int] = field(default_factory=list)
    new_sources: list[str] = field(default_factory=list)
    dictated: list[int] = field(default_factory=list)
    """Tokens that a guide dictated and that :func:`settle` has not seen yet."""
    failure: Exception | None = None
    """What one of its guides raised in this step, before anything was verified."""

    @property
    def reading(self) -> bool:
        """True while prompt tokens besides the root wait to be fed."""
        return len(self.stream.pending) > 1

    @property
    def taps(self) -> Sequence[int]:
        """Target layers that the drafter wants to see."""
        return self.drafter.taps if self.drafter else ()


@dataclass(slots=True)
class Scored:
    """A request's tree with what the models said of it."""

    running: Running
    tree: TokenTree
    result: ForwardResult
    guide_results: dict[int, ForwardResult]


def draft(
    batch: Sequence[Running],
    load: Load,
    measured: Callable[[str, DraftCall], None],
    clock: Callable[[], float] = perf_counter,
) -> list[TokenTree]:
    """A tree for each request: policies plan, drafters propose, policies trim.

    Args:
        measured: Told the drafter's name and what its call took.
    """
    trees: list[TokenTree] = []
    for running in batch:
        forced = None
        with _blamed(running):
            if _takes_dictation(running):
                _take_dictation(running, load.drafts)
            forced = _forced_draft(running, load.drafts)
        trees.append(forced or TokenTree.root(running.stream.pending[-1]))
    able = [i for i, running in enumerate(batch) if len(trees[i]) == 1 and _may_draft(running)]
    if not able:
        return trees
    budgets: dict[int, Budget] = {}
    for policy, members in _by_part(able, lambda i: batch[i].request.policy):
        planned = policy.plan([batch[i].record for i in members], load)
        for i, budget in zip(members, planned, strict=True):
            # The last token allowed is the target's own, so a draft need not reach it.
            depth = min(batch[i].view.remaining - 1, load.drafts)
            budgets[i] = budget.minimum(Budget(load.drafts, depth))
    drafting = [i for i in able if budgets[i].minimum(NO_DRAFT) != budgets[i]]
    for drafter, members in _by_part(drafting, lambda i: batch[i].drafter):
        started = clock()
        jobs: dict[int, DraftJob] = {}
        for i in members:
            with _blamed(batch[i]):
                jobs[i] = _draft_job(batch[i], budgets[i])
        if not jobs:
            continue
        proposed = drafter.propose([*jobs.values()])
        for i, tree in zip(jobs, proposed, strict=True):
            with _blamed(batch[i]):
                trees[i] = _pruned(batch[i], tree)
        seconds = clock() - started
        depth = max(max(tree.depths()) for tree in proposed)
        measured(drafter.name, DraftCall(depth, sum(len(tree) - 1 for tree in proposed), seconds))
    for policy, members in _by_part(drafting, lambda i: batch[i].request.policy):
        kept = policy.trim([batch[i].record for i in members], [trees[i] for i in members], load)
        for i, tree in zip(members, kept, strict=True):
            trees[i] = tree
    return trees


@contextmanager
def _blamed(running: Running) -> Iterator[None]:
    """What is raised here, by a guide say, is the failure of this request alone; the others go on."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        running.failure = error


def _may_draft(running: Running) -> bool:
    # While prompt tokens wait, a drafter that reads hidden rows has not seen the root's yet.
    ready = running.failure is None and not (running.reading and running.taps)
    return running.drafter is not None and ready and running.view.remaining > 1


def _forced(running: Running, state: GuideState, most: int) -> list[int]:
    """Tokens that a guide says must follow, short of the last one allowed."""
    forced = getattr(state, "forced", None)
    return forced()[: min(running.view.remaining - 1, most)] if forced else []


def _takes_dictation(running: Running) -> bool:
    """True if forced tokens may be taken without scoring them: nobody else has a say, or wants to look."""
    request = running.request
    return (
        len(running.guides) == 1
        and not hasattr(running.guides[0][1], "streams")
        and running.sampling.idle
        and not running.taps
        and request.trace is None
        and request.logprobs is None
    )


def _take_dictation(running: Running, most: int) -> None:
    """Take what the guide forces, so that the next tree grows behind it.

    Under the guide these tokens have all the mass. They wait in the stream like tokens of a prompt, and
    enter the cache with the next tree, without logits of their own.
    """
    ((name, state),) = running.guides
    tokens = _forced(running, state, most)
    if not tokens:
        return
    tree = TokenTree.chain([running.stream.pending[-1], *tokens[:-1]], name)
    path = range(len(tree))
    running.stream.advance(tree, path, tokens[-1])
    if running.drafter is not None:
        running.drafter.observe(running.draft_state, Commit(tree, path, tokens[-1], ()))
    for token in tokens:
        state.advance(token)
        running.sampling.advance(token)
    running.view.tokens += tokens
    running.dictated += tokens


def _forced_draft(running: Running, most: int) -> TokenTree:
    """The root with the tokens that a guide says must follow; a draft that costs nothing to make."""
    root = running.stream.pending[-1]
    for name, state in running.guides:
        if tokens := _forced(running, state, most):
            return TokenTree.chain([root, *tokens], name)
    return TokenTree.root(root)


def _pruned(running: Running, tree: TokenTree) -> TokenTree:
    """The tree without the nodes that a guide would forbid.

    Drawn nodes stay: the verifier has to see every draw, the impossible ones too, or it would be biased.
    """
    for _, state in running.guides:
        prune = getattr(state, "prune", None)
        if prune is None or len(tree) == 1:
            continue
        allowed = set(prune(tree))
        kept = [0]
        for node in range(1, len(tree)):
            parent = tree.parents[node]
            drawn = parent in tree.draws and parent in allowed
            if parent in kept and (node in allowed or drawn):
                kept.append(node)
        if len(kept) < len(tree):
            tree = tree.keep(kept)
    return tree


def _by_part(indices: Sequence[int], part_of: Callable[[int], Any]) -> list[tuple[Any, list[int]]]:
    groups: dict[int, tuple[Any, list[int]]] = {}
    for index in indices:
        part = part_of(index)
        groups.setdefault(id(part), (part, []))[1].append(index)
    return list(groups.values())


def _draft_job(running: Running, budget: Budget) -> DraftJob:
    guided = getattr(running.drafter, "guided", False)
    forks = [state.fork() for _, state in running.guides if hasattr(state, "fork")] if guided else []
    stream = running.stream
    return DraftJob(running.view, running.draft_state, budget, stream.pending[-1], forks, stream)


def score(
    batch: Sequence[Running], trees: Sequence[TokenTree], reading: Sequence[tuple[Running, int]], chunk: int
) -> tuple[list[Scored], list[ForwardResult]]:
    """One forward a model: all trees, and the prompt chunks of the requests still reading.

    Guides' own streams score the same trees; those of the target's model join its pass. A guide stream
    that lies far behind is brought up in chunks first.
    """
    entries: list[tuple[Stream, Rows, Sequence[int]]] = []
    owners: list[tuple[int, int]] = []
    for index, (running, tree) in enumerate(zip(batch, trees, strict=True)):
        needs: list[Needs] = []
        with _blamed(running):
            needs = [_needs(state, tree) for _, state in running.guides]
        taps = [*running.taps, *getattr(running.request.verifier, "taps", ())]
        taps += [layer for need in needs for layer in need.taps]
        entries.append((running.stream, running.stream.rows(tree, range(len(tree))), taps))
        owners.append((index, 0))
        for stream in {id(s): s for need in needs for s in need.streams}.values():
            catch_up(stream, chunk)
            entries.append((stream, stream.rows(tree, range(len(tree))), ()))
            owners.append((index, id(stream)))
    for running, count in reading:
        entries.append((running.stream, running.stream.feed(count), running.taps))
    results = forward(entries)
    scored: list[Scored] = []
    for (index, stream_id), result in zip(owners, results, strict=False):
        if stream_id:
            scored[index].guide_results[stream_id] = result
        else:
            scored.append(Scored(batch[index], trees[index], result, {}))
    return scored, results[len(owners) :]


def _needs(state: GuideState, tree: TokenTree) -> Needs:
    needs = getattr(state, "needs", None)
    return needs(tree) if needs else Needs()


def verify(scored: Scored) -> tuple[Walk, Exception | None]:
    """Let the request's verifier walk its tree, as far as it comes.

    A failure, of a guide say, belongs to this request alone; what was taken before it stays taken.
    """
    running = scored.running
    lead = running.stream.lead
    walk = Walk(
        scored.tree,
        scored.result.logits,
        running.view,
        running.sampling,
        running.guides,
        {layer: rows[lead:] for layer, rows in scored.result.hidden.items()},
        {key: result.logits for key, result in scored.guide_results.items()},
        recorded=running.request.trace is not None or running.request.logprobs is not None,
    )
    if running.failure is not None:
        return walk, running.failure
    if running.guides:
        walk.clock = perf_counter
    try:
        running.request.verifier.select(walk)
    except Exception as error:
        return walk, error
    return walk, None


def commit(scored: Scored, walk: Walk) -> None:
    """Keep the accepted path in every cache and tell the drafter about it."""
    running, tree, path = scored.running, scored.tree, walk.path
    stream = running.stream
    fed = [*stream.pending[:-1], *(tree.tokens[node] for node in path)]
    lead = stream.lead
    stream.advance(tree, path, walk.taken[-1])
    streams = {id(s): s for _, state in running.guides for s in getattr(state, "streams", ())}
    for guide_stream in streams.values():
        guide_stream.advance(tree, path, walk.taken[-1])
    drafter = running.drafter
    if drafter is not None:
        rows = [*range(lead), *(lead + node for node in path)]
        hidden = {layer: scored.result.hidden[layer][rows] for layer in drafter.taps}
        logits = scored.result.logits
        drafter.observe(running.draft_state, Commit(tree, path, walk.taken[-1], fed, hidden, logits))


def _count(stats: Stats, walk: Walk) -> None:
    stats.steps += 1
    stats.drafted += len(walk.tree) - 1
    stats.accepted += walk.accepted
    # A depth was judged when the walk stood above it and found drafts there.
    for depth, node in enumerate(walk.path[: len(walk.taken)]):
        if not walk.has_children(node):
            break
        if depth == len(stats.proposed_by_depth):
            stats.proposed_by_depth.append(0)
            stats.accepted_by_depth.append(0)
        stats.proposed_by_depth[depth] += 1
        stats.accepted_by_depth[depth] += depth < walk.accepted


def emit(running: Running, walk: Walk, batch_size: int) -> None:
    """Add what a walk took to the output, with all that is kept about it."""
    request, completion = running.request, running.completion
    if walk.taken:
        _count(completion.stats, walk)
        if request.trace is not None:
            request.trace.record(walk.tree, walk, batch_size)
    if request.logprobs is not None and completion.logprobs is not None:
        for (_, raw, _row), token in zip(walk.visited, walk.taken, strict=False):
            top = most_probable(raw, request.logprobs) if request.logprobs else []
            completion.logprobs.append(TokenLogprob(token, log_probability(raw, token), top))
    settle(running, walk.taken, walk.sources)
    if completion.logprobs is not None:
        del completion.logprobs[len(completion.tokens) :]


def settle(running: Running, tokens: Sequence[int] = (), sources: Sequence[str] = ()) -> None:
    """Add tokens to the output behind those that were dictated, and decide whether the request is done.

    It is at an end token, a stop string or the length limit; what stands behind that is left out.
    """
    request, completion = running.request, running.completion
    dictated, running.dictated = running.dictated, []
    completion.stats.dictated += len(dictated)
    named = [running.guides[0][0] for _ in dictated]
    for token, source in zip((*dictated, *tokens), (*named, *sources), strict=True):
        completion.tokens.append(token)
        running.new_tokens.append(token)
        running.new_sources.append(source)
        if token in request.end_ids:
            completion.finish_reason = "stop"
        elif running.detokenizer is not None:
            running.piece += running.stops.push(running.detokenizer.push(token))
        if running.stops.stopped:
            completion.finish_reason = "stop"
        elif len(completion.tokens) >= request.max_new_tokens and completion.finish_reason is None:
            completion.finish_reason = "length"
        if completion.finish_reason is not None:
            break
    completion.stats.new_tokens = len(completion.tokens)
