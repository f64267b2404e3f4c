"""Falcon's central claims: glances in training, two tokens a pass against one, and a tree against a chain."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from time import perf_counter
from typing import Any

from ventris.draft.checkpoint import find_checkpoint, read_config
from ventris.draft.falcon import Falcon
from ventris.draft.head_tree import StaticTree
from ventris.papers.on_prompts import OnPrompts, speed, speed_row
from ventris.papers.reproduction import Reproduction, Row

FIGURE = (
    "glancing lifts the accepted length from 2.78 to 3.34 tokens (Vicuna-7B, MT-Bench); 3.10 times as fast "
    "as plain decoding, EAGLE 2.82"
)


def reproduce_falcon(
    checkpoint: str | None = None,
    plain: str | None = None,
    single: str | None = None,
    linear: str | None = None,
    nodes: int = 16,
    data: str | None = None,
    per_category: int | None = None,
    max_new_tokens: int = 128,
    repeats: int = 1,
    **settings: Any,
) -> Reproduction:
    """Tokens a pass with one tree: with glances and without, k tokens a pass and one, the tree and a chain.

    Args:
        checkpoint: Folder of the drafter; the one that comes with Ventris when not given.
        plain: Folder of one trained for as many steps without glances, for the paper's ablation.
        single: Folder of one that guesses one token a pass.
        linear: Folder of one with a linear map in place of the LSTM.
        nodes: Drafted tokens of the tree that all get: the best one by what ``checkpoint`` measured.
        data: Prompts as JSONL; the built-in ones when not given.
        per_category: Prompts of each category; all when not given.
        max_new_tokens: Output tokens at most.
        repeats: How often each prompt is decoded for the speeds.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.
    """
    started = perf_counter()
    measured = OnPrompts(data, per_category, max_new_tokens, repeats, settings)
    folder = str(find_checkpoint("falcon", measured.model.target, checkpoint))
    trained = {
        where: read_config(Path(where).expanduser()) for where in (folder, plain, single, linear) if where
    }
    tree = Falcon.tree_of(trained[folder]["measured"])
    drafter = Falcon.load(measured.model, folder, tree, nodes=nodes)
    tokens = measured.tokens_per_pass(drafter)
    rows = []
    shares = [_held_out(trained[where]) for where in (folder, plain) if where]
    for depth, (share, *without) in enumerate(zip_longest(*shares, fillvalue=0.0), start=1):
        name = f"guess at depth {depth} right, those above it being right (held-out text)"
        rows.append(Row(name + (", against no glances" if without else ""), share, "share", *without))
    others = {"training without glances": plain, "one token a pass": single, "no LSTM": linear}
    for what, where in others.items():
        if where is not None:
            other = Falcon.load(measured.model, where, tree, nodes=nodes)
            rows += measured.against(f"with {nodes} nodes", tokens, {what: other})
            if where == single:
                rows.append(
                    Row("drafter passes a proposal, likewise", drafter.passes, "passes", other.passes)
                )
    straight = Falcon.load(measured.model, folder, chain(tree), nodes=nodes)
    rows += measured.against(f"with {nodes} nodes", tokens, {"a chain of the same height": straight})
    specs = [f'falcon = falcon:"{folder}",nodes={nodes}']
    if single is not None:
        specs.append(f'single = falcon:"{single}",nodes={nodes}')
    report = measured.race(specs)
    rows.append(speed_row(report, "falcon"))
    if single is not None:
        name = "speed, as a multiple of plain decoding's, against one token a pass"
        rows.append(Row(name, speed(report, "falcon"), "x", speed(report, "single")))
    steps = ", ".join(f"{config['training'].get('steps', 0)}" for config in trained.values())
    notes = measured.notes(f"steps of training, in the order of the options: {steps}")
    return Reproduction("falcon", FIGURE, rows, perf_counter() - started, notes)


def chain(tree: StaticTree) -> StaticTree:
    """The best guesses alone, as deep as the tree."""
    best = {path: value for path, value in zip(tree.paths, tree.values, strict=True) if not any(path)}
    return StaticTree(list(best), list(best.values()))


def _held_out(config: Any) -> list[float]:
    shares: list[float] = config["training"].get("held_out_acceptance", [])
    return shares
