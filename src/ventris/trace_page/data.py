"""What the page shows, as plain JSON values: sources, steps with their trees, and headline numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ventris.engine.errors import BadInput
from ventris.engine.request import Completion
from ventris.engine.trace import Candidates, StepTrace, Visit
from ventris.trace_page.text import ByteView, bytes_of, visible

PARTS = ("draft", "target", "guide", "verify", "other")
DRAFT_HUES = 6
"""Hues for drafters in the style sheet; more drafters begin again with the first."""

ONLY_CHOICE = "guide (only choice)"
"""Source of a token that the target took because guides had forbidden every other one."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where tokens came from.

    Attributes:
        label: For the legend.
        hue: Class in the style sheet.
        count: Output tokens it stands behind.
    """

    name: str
    label: str
    hue: str
    count: int


def page_data(completion: Completion, tokenizer: ByteView | None) -> dict[str, Any]:
    """Everything that the page's script reads.

    Raises:
        BadInput: if the completion has no trace, or one of something else.
    """
    trace = completion.trace
    if trace is None:
        raise BadInput("the completion has no trace; generate it with trace=True")
    steps: list[dict[str, Any]] = []
    first = 0
    for step in trace.steps:
        # A walk takes one token at every node of its path. A stop string may cut the last ones off.
        output = completion.tokens[first : first + len(step.path)]
        steps.append(_step(step, output) | {"first": first, "count": len(output)})
        first += len(output)
    if first != len(completion.tokens):
        raise BadInput(
            f"the trace covers {first} of {len(completion.tokens)} tokens; it is of another request"
        )
    sources = _sources(trace.steps, steps)
    index = {source.name: number for number, source in enumerate(sources)}
    for data in steps:
        data["drafter"] = index.get(data["drafter"])
        for visit in data["visits"]:
            visit["source"] = index[visit["source"]]
    return {
        "guarantee": asdict(completion.guarantee) if completion.guarantee else None,
        "finish": completion.finish_reason,
        "valid": completion.valid,
        "stats": _stats(completion),
        "parts": PARTS,
        "sources": [asdict(source) for source in sources],
        "names": {token: visible(bytes_of(tokenizer, token)) for token in sorted(_tokens(steps))},
        "steps": steps,
    }


def step_data(step: StepTrace, output: Sequence[int], tokenizer: ByteView | None) -> dict[str, Any]:
    """One step as plain JSON values, for pages that follow an answer while it comes.

    Args:
        output: The tokens that it brought.
    """
    data = _step(step, output)
    return data | {
        "names": {token: visible(bytes_of(tokenizer, token)) for token in sorted(_tokens([data]))},
        "seconds": dict(step.seconds),
    }


def _step(step: StepTrace, output: Sequence[int]) -> dict[str, Any]:
    children: dict[tuple[int, int], int] = {}
    for node in range(len(step.tokens) - 1, 0, -1):
        children[step.parents[node], step.tokens[node]] = node
    known = {visit.node: visit for visit in step.visits}
    visits = []
    for place, node in enumerate(step.path):
        visit = known.get(node)
        if place < len(output):
            token = output[place]
        elif place + 1 < len(step.path):
            token = step.tokens[step.path[place + 1]]
        elif visit is not None:
            token = visit.token
        else:
            break
        visits.append(_visit(step, node, token, (node, token) in children, visit))
    # A draft that ends the text is taken without a further look at it, so the path stops before it.
    last = (visits[-1]["node"], visits[-1]["token"]) if visits else (0, -1)
    return {
        "tokens": list(step.tokens),
        "parents": list(step.parents),
        "confidence": [round(float(value), 3) for value in step.confidence],
        "drafter": step.drafter if len(step.tokens) > 1 else None,
        "kept": [*step.path, *([children[last]] if last in children else [])],
        "visits": visits,
        "micros": _micros(step.seconds),
        "batch": step.batch,
    }


def _visit(step: StepTrace, node: int, token: int, drafted: bool, visit: Visit | None) -> dict[str, Any]:
    """A token taken at a node; a verifier that judges drafts as a whole does not look at every node."""
    if visit is None or visit.token != token:
        source = step.drafter if drafted else "target"
        return {"node": node, "token": token, "source": source, "logp": None, "raw": [], "guided": None}
    source = visit.source
    if source == "target" and _forced(visit.guided):
        source = ONLY_CHOICE
    guided = None if visit.guided is None else _finite(visit.guided)
    fates = fates_under_guides(visit.candidates, visit.guided) if visit.guided is not None else {}
    raw = [[*pair, fates[pair[0]]] if pair[0] in fates else pair for pair in _finite(visit.candidates)]
    logp = round(visit.log_probability, 4) if math.isfinite(visit.log_probability) else None
    return {"node": node, "token": token, "source": source, "logp": logp, "raw": raw, "guided": guided}


def _forced(guided: Candidates | None) -> bool:
    return guided is not None and len(guided) > 1 and sum(math.isfinite(value) for _, value in guided) == 1


def _finite(candidates: Candidates) -> list[list[Any]]:
    return [[token, round(value, 4)] for token, value in candidates if math.isfinite(value)]


def fates_under_guides(raw: Candidates, guided: Candidates) -> dict[int, str]:
    """The target's candidates that are gone after penalties and guides: ``"forbidden"`` or ``"out"``.

    A trace keeps only the best few tokens, so a token that is missing among the guided ones was either
    forbidden or pushed down. It was surely forbidden if forbidden tokens show among the best few already;
    and it was if the others were all raised alike, as a mask does it, and nothing else.
    """
    before = {token: value for token, value in raw if math.isfinite(value)}
    after = {token: value for token, value in guided if math.isfinite(value)}
    shifts = [after[token] - before[token] for token in after if token in before]
    masked = len(after) < len(guided) or (len(shifts) > 1 and max(shifts) - min(shifts) < 1e-3)
    return {token: "forbidden" if masked else "out" for token in before if token not in after}


def _sources(traced: Sequence[StepTrace], steps: Sequence[Mapping[str, Any]]) -> list[Source]:
    """The target first, then drafters in the order of their appearance, then everybody else."""
    counts: Counter[str] = Counter()
    seen: dict[str, None] = {}
    for step in steps:
        counts.update(visit["source"] for visit in step["visits"][: step["count"]])
        seen |= {visit["source"]: None for visit in step["visits"]}
    drafters = dict.fromkeys(step.drafter for step in traced if len(step.tokens) > 1)
    sources = [Source("target", "the target's own pick", "target", counts["target"])]
    for number, name in enumerate(drafters):
        label = f"accepted draft: {name or 'unnamed'}"
        sources.append(Source(name, label, f"draft{number % DRAFT_HUES + 1}", counts[name]))
    for name in seen:
        if name == ONLY_CHOICE:
            sources.append(Source(name, "forced: a guide left no other choice", "guide", counts[name]))
        elif name != "target" and name not in drafters:
            sources.append(Source(name, name, "guide" if "guide" in name else "judge", counts[name]))
    return sources


def _stats(completion: Completion) -> dict[str, Any]:
    stats = completion.stats
    return {
        "prompt": stats.prompt_tokens,
        "tokens": len(completion.tokens),
        "steps": stats.steps,
        "drafted": stats.drafted,
        "accepted": stats.accepted,
        "perSecond": round(stats.tokens_per_second, 2),
        "perStep": round(stats.tokens_per_step, 3),
        "firstToken": round(stats.first_token_seconds, 4),
        "total": round(stats.total_seconds, 4),
        "proposedByDepth": list(stats.proposed_by_depth),
        "acceptedByDepth": list(stats.accepted_by_depth),
        "micros": _micros(stats.seconds),
    }


def _micros(seconds: Mapping[str, float]) -> list[int]:
    return [round(1e6 * seconds.get(part, 0.0)) for part in PARTS]


def _tokens(steps: Sequence[Mapping[str, Any]]) -> set[int]:
    tokens: set[int] = set()
    for step in steps:
        tokens.update(step["tokens"])
        for visit in step["visits"]:
            tokens.add(visit["token"])
            tokens.update(row[0] for row in visit["raw"])
            tokens.update(row[0] for row in visit["guided"] or ())
    return tokens
