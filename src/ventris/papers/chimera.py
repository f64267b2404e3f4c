"""Chimera's central claims: tokens a pass over Medusa with one tree, and what each of its parts is worth."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from ventris.draft import Chimera, Medusa
from ventris.draft.checkpoint import find_checkpoint, read_config
from ventris.draft.head_tree import grow_from_accuracies
from ventris.papers.on_prompts import OnPrompts, speed_row
from ventris.papers.reproduction import Reproduction, Row

FIGURE = "2.7 times as fast as plain decoding on average (Vicuna and LLaMA-2 models)"


def reproduce_chimera(
    checkpoint: str | None = None,
    trigrams: str | None = None,
    context: str | None = None,
    distillation: str | None = None,
    medusa: str | None = None,
    nodes: int = 16,
    data: str | None = None,
    per_category: int | None = None,
    max_new_tokens: int = 128,
    repeats: int = 1,
    **settings: Any,
) -> Reproduction:
    """Tokens a pass against Medusa-1 with one tree, with a part left out, and what the memo spares.

    Args:
        checkpoint: Folder of the drafter; the one that comes with Ventris when not given.
        trigrams: Folder of one trained without trigrams (``--left-out trigrams``).
        context: Folder of one trained without the layer (``--left-out context``).
        distillation: Folder of one trained on the text's tokens alone (``--loss cross_entropy --state-weight
            0``).
        medusa: Folder of Medusa heads; those that come with Ventris when not given.
        nodes: Drafted tokens of the tree that all get: the best one by Medusa's accuracies.
        data: Prompts as JSONL; the built-in ones when not given.
        per_category: Prompts of each category; all when not given.
        max_new_tokens: Output tokens at most.
        repeats: How often each prompt is decoded for the speed-up.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.
    """
    started = perf_counter()
    measured = OnPrompts(data, per_category, max_new_tokens, repeats, settings)
    model = measured.model
    accuracies = read_config(find_checkpoint("medusa", model.target, medusa))["measured"]["accuracies"]
    tree = grow_from_accuracies(accuracies, nodes)
    drafter = Chimera.load(model, checkpoint, tree, nodes=nodes)
    tokens = measured.tokens_per_pass(drafter)
    others: dict[str, Any] = {"Medusa-1": Medusa.load(model, medusa, tree, nodes=nodes)}
    for what, where in (("trigrams", trigrams), ("context", context), ("distillation", distillation)):
        if where is not None:
            others[f"no {what}"] = Chimera.load(model, where, tree, nodes=nodes)
    rows = measured.against(f"with the same tree of {len(tree.paths)} nodes", tokens, others)
    if drafter.memo is not None:
        found = drafter.memo.found / max(drafter.memo.asked, 1)
        rows.append(Row("trigrams that were remembered", found, "share"))
    spec = (
        f'chimera = chimera:"{checkpoint}",nodes={nodes}'
        if checkpoint
        else f"chimera = chimera:nodes={nodes}"
    )
    rows.append(speed_row(measured.race([spec]), "chimera"))
    return Reproduction("chimera", FIGURE, rows, perf_counter() - started, measured.notes())
