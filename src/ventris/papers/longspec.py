"""LongSpec's central claims: while the text grows, the drafter's memory does not, and it stays as quick."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ventris.bench.prepare import load_model
from ventris.bench.question import Question
from ventris.bench.record import Report
from ventris.bench.runner import run_bench
from ventris.bench.settings import read_settings
from ventris.bench.summary import summarize
from ventris.draft.checkpoint import find_checkpoint
from ventris.draft.decoder_beside import config_of
from ventris.engine.errors import BadInput
from ventris.engine.ledger import MemoryLedger
from ventris.engine.target import Target
from ventris.model import Model
from ventris.models.merged_attention import attend_parts
from ventris.papers.on_prompts import speed
from ventris.papers.reproduction import Reproduction, Row

FIGURE = (
    "1.48 to 3.26 times as fast as plain decoding on five long-context sets (five models of 7 to 13 billion)"
)

MODULES = ("argparse", "inspect", "typing", "tarfile", "subprocess")
"""Long texts that are at hand wherever Python is: modules of its standard library."""

CONTEXTS = (1024, 2048, 4096, 8192)

TURNS = 15
"""How often each form of attention is timed."""


def reproduce_longspec(
    checkpoint: str | None = None,
    control: str | None = None,
    unmoved: str | None = None,
    contexts: Sequence[int] = CONTEXTS,
    data: str | None = None,
    texts: int = 2,
    max_new_tokens: int = 64,
    nodes: int = 16,
    repeats: int = 1,
    **settings: Any,
) -> Reproduction:
    """Memory, tokens a pass and speed behind longer and longer texts, of LongSpec and of an EAGLE-3 layer.

    Every context of a text ends at the same token, so that the same continuation is decoded behind more of
    it. The EAGLE-3 layer is the control: its cache grows with the text, and it learnt at the first
    positions alone.

    Args:
        checkpoint: Folder of the LongSpec drafter; the one that comes with Ventris when not given.
        control: Folder of the EAGLE-3 layer, likewise.
        unmoved: Folder of a LongSpec drafter whose texts were not moved (``--farthest 0``), for the ablation
            of the anchor offsets; left out when not given.
        contexts: Tokens of context, ascending; the first is what the others are compared with. One that does
            not leave room for the answer is cut to what does.
        data: A long text in UTF-8; source code of Python's standard library when not given.
        texts: How many texts, of those of the standard library.
        max_new_tokens: Output tokens.
        nodes: Drafted tokens of a tree at most.
        repeats: How often each text is continued.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.
    """
    started = perf_counter()
    folders = {"longspec": checkpoint, "eagle": control}
    given = {**settings, "max_new_tokens": max_new_tokens, "repeats": repeats, "ignore_eos": True}
    model = load_model(read_settings(given))
    lengths = _lengths(contexts, model.target.context_length - max_new_tokens)
    found = {name: str(find_checkpoint(name, model.target, where)) for name, where in folders.items()}
    drafts = {name: f'{name}:"{where}",nodes={nodes}' for name, where in found.items()}
    methods = [f"{name} = {spec} @ fixed" for name, spec in drafts.items()]
    if unmoved is not None:
        methods.append(f'longspec-unmoved = longspec:"{unmoved}",nodes={nodes} @ fixed')
    sources = _token_texts(model, data, texts, lengths[-1])
    questions = [
        Question(f"{name}-{length}", _category(length), tokens=tuple(tokens[-length:]))
        for length in lengths
        for name, tokens in sources.items()
    ]
    report = run_bench(read_settings({**given, "methods": methods}), model=model, questions=questions)
    drafting = [*drafts, *(["longspec-unmoved"] if unmoved is not None else [])]
    rows = [row for name in drafting for row in _speeds(report, name, lengths)]
    longest = next(iter(sources.values()))
    for name, spec in drafts.items():
        held = [_own_bytes(model, spec, longest[-length:]) / 1024 for length in lengths]
        rows += [
            Row(f"memory of {name}'s own behind {length} tokens, against {lengths[0]}", size, "KiB", held[0])
            for length, size in zip(lengths, held, strict=True)
        ]
    rows += [_attention_times(model.target, length, nodes) for length in lengths]
    where = f"the text {Path(data).name}" if data else f"the modules {', '.join(sources)}"
    notes = [f"{read_settings(given).model} in {getattr(model.target, 'dtype', '')}, {where}"]
    return Reproduction("longspec", FIGURE, rows, perf_counter() - started, notes)


def _lengths(contexts: Sequence[int], most: int) -> list[int]:
    lengths = sorted({min(length, most) for length in contexts})
    if len(lengths) < 2 or lengths[0] < 2:
        raise BadInput(
            f"contexts is {list(contexts)}, but at least two lengths from 2 to {most} are needed to compare"
        )
    return lengths


def _category(length: int) -> str:
    return f"{length} tokens"


def _token_texts(model: Model, data: str | None, count: int, length: int) -> dict[str, list[int]]:
    """The first ``length`` tokens of some long texts, by their names.

    Raises:
        BadInput: for a text that cannot be read or is too short.
    """
    if model.tokenizer is None:
        raise BadInput("this model has no tokenizer; choose one that reads text")
    if data is None:
        written = {name: inspect.getsource(importlib.import_module(name)) for name in MODULES[:count]}
    else:
        try:
            written = {Path(data).name: Path(data).expanduser().read_text(encoding="utf-8")}
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read the text in {data}: {error}") from None
    read = {name: list(model.tokenizer.encode(text))[:length] for name, text in written.items()}
    for name, tokens in read.items():
        if len(tokens) < length:
            raise BadInput(f"{name} has {len(tokens)} tokens, but {length} are needed; give a longer text")
    return read


def _speeds(report: Report, name: str, lengths: Sequence[int]) -> list[Row]:
    """Tokens a pass and speed behind each length, against those behind the first."""
    cells = summarize(report).cells
    passes = [cells[name, _category(length)].tokens_per_pass or 0.0 for length in lengths]
    speeds = [speed(report, name, _category(length)) for length in lengths]
    rows = []
    for length, tokens, times in zip(lengths, passes, speeds, strict=True):
        behind = f"with {name} behind {length} tokens, against {lengths[0]}"
        rows.append(Row(f"tokens a pass {behind}", tokens, "tokens", passes[0]))
        rows.append(Row(f"speed as a multiple of plain decoding's {behind}", times, "x", speeds[0]))
    return rows


def _attention_times(target: Target, context: int, nodes: int) -> Row:
    """Attention of a chain of drafts behind a text, put together from two parts, against one masked call."""
    layout = target.new_cache(1).layout
    random = torch.Generator().manual_seed(0)
    config = config_of(target)
    group = config.num_heads // config.num_kv_heads
    shape = (layout.kv_heads, context + nodes, layout.head_dim)
    keys, values = (torch.randn(shape, generator=random) for _ in range(2))
    query = torch.randn((layout.kv_heads, group, nodes, layout.head_dim), generator=random)
    tree = torch.full((nodes, nodes), -torch.inf).triu(1)
    mask = torch.cat([torch.zeros(nodes, context), tree], dim=1)
    scale = layout.head_dim**-0.5
    parts = [(keys[:, :context], values[:, :context]), (keys[:, context:], values[:, context:])]
    wide = (layout.kv_heads, group, *shape[1:])

    def masked() -> Tensor:
        return F.scaled_dot_product_attention(
            query, keys[:, None].expand(wide), values[:, None].expand(wide), attn_mask=mask
        )

    def merged() -> Tensor:
        return attend_parts(query, parts, scale, tree)

    name = f"tree attention in two parts behind {context} tokens, against one masked call"
    return Row(name, *_milliseconds(merged, masked))


def _milliseconds(one: Callable[[], Tensor], other: Callable[[], Tensor]) -> tuple[float, str, float]:
    """Median times of two functions, called in turn, as the columns of a row."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for function, taken in zip((one, other), times, strict=True):
            started = perf_counter()
            function()
            taken.append(1000 * (perf_counter() - started))
    return median(times[0]), "ms", median(times[1])


def _own_bytes(model: Model, draft: str, prompt: Sequence[int]) -> int:
    """Most bytes that the drafter's own caches held while a text was read and continued."""
    ledger = MemoryLedger()
    engine = model.engine(max_batch=1, ledger=ledger)
    engine.add(model.request(list(prompt), draft=draft, policy="fixed", max_new_tokens=8, ignore_eos=True))
    most = 0
    for _ in engine.run():
        most = max(most, sum(size for owner, size in ledger.held.items() if owner != "target"))
    engine.close()
    return most
