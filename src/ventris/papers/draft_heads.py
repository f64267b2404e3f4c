"""The central claims of Medusa, Hydra and EAGLE-3, on the heads that come with Ventris.

Absolute speeds belong to a machine; the ratios are measured in one run, on the same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from time import perf_counter
from typing import Any

from ventris.bench.summary import compare
from ventris.draft import Eagle, Hydra, Medusa
from ventris.draft.checkpoint import find_checkpoint, read_config
from ventris.draft.head_tree import StaticTree, accuracy_of_path, grow_from_accuracies
from ventris.model import Model
from ventris.papers.on_prompts import OnPrompts, speed_row
from ventris.papers.reproduction import Reproduction, Row

MEDUSA_FIGURE = "Medusa-1 decodes over 2.2 times as fast as plain decoding (Vicuna-7B, batch 1, greedy)"
HYDRA_FIGURE = (
    "Hydra++ accepts 3.70 tokens a pass where Medusa accepts 2.58, and decodes 2.70 times as fast as plain"
)


EAGLE_FIGURE = "up to 6.5 times as fast as plain decoding, and more tokens a pass than any drafter before it"

TRAINING = "the paper's heads were trained on far larger models with far more text"


def reproduce_medusa(
    data: str | None = None,
    per_category: int | None = None,
    max_new_tokens: int = 128,
    nodes: int = 15,
    repeats: int = 1,
    checkpoint: str | None = None,
    tuned: str | None = None,
    tuned_dtype: str = "auto",
    **settings: Any,
) -> Reproduction:
    """Accuracy by head, the searched tree, typical acceptance, the speed-up, and Medusa-2 against Medusa-1.

    Args:
        data: Prompts as JSONL; the built-in ones when not given.
        per_category: Prompts of each category; all when not given.
        max_new_tokens: Output tokens at most.
        nodes: Drafted tokens of the two trees; 15 is a full binary tree of three levels and a node.
        repeats: How often each prompt is decoded for the speed-up.
        checkpoint: Folder of the heads; those that come with Ventris when not given.
        tuned: Folder that ``ventris train medusa2`` wrote for the same model; without it nothing is said of
            Medusa-2.
        tuned_dtype: Format of the tuned target, whose changes blocks of 4 bits round away.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.
    """
    started = perf_counter()
    measured = OnPrompts(data, per_category, max_new_tokens, repeats, settings)
    accuracies = _measured(measured.model, "medusa", checkpoint)["accuracies"]
    full = full_tree(accuracies, nodes)
    searched = Medusa.load(measured.model, checkpoint, nodes=len(full.paths))
    complete = Medusa.load(measured.model, checkpoint, full, nodes=len(full.paths))
    searched_passes = measured.tokens_per_pass(searched)
    rows = [
        Row(f"guess of head {head} right (held-out text)", row[0], "share")
        for head, row in enumerate(accuracies, start=1)
    ]
    rows.append(
        Row(
            f"tokens a pass with the searched tree, against a full one of {len(full.paths)} nodes",
            searched_passes,
            "tokens",
            measured.tokens_per_pass(complete),
        )
    )
    report = measured.race([f"medusa = {_spec('medusa', checkpoint)}"])
    rows.append(speed_row(report, "medusa"))
    typical, sampled = (
        measured.tokens_per_pass(searched, temperature=0.7, verifier=verifier)
        for verifier in ("typical", "coupled")
    )
    rows.append(
        Row(
            "tokens a pass of typical acceptance (approximate) at temperature 0.7, against sampled match",
            typical,
            "tokens",
            sampled,
        )
    )
    notes = [TRAINING]
    if tuned is not None:
        own = {**settings, "model": tuned, "dtype": tuned_dtype}
        second = OnPrompts(data, per_category, max_new_tokens, repeats, own)
        rows += _medusa2_rows(tuned, second, searched_passes, len(full.paths))
        notes.append("Medusa-2 is another target: its speed is a multiple of its own plain decoding's")
    return Reproduction("medusa", MEDUSA_FIGURE, rows, perf_counter() - started, measured.notes(*notes))


def _medusa2_rows(tuned: str, measured: OnPrompts, alone: float, nodes: int) -> list[Row]:
    """Medusa-2 on its own target.

    Args:
        alone: Tokens a pass of Medusa-1 with as many nodes, on the target from before.
    """
    drafter = Medusa.load(measured.model, tuned, nodes=nodes)
    quality = read_config(find_checkpoint("medusa", measured.model.target, tuned))["training"]["quality"]
    report = measured.race([f"medusa-2 = {_spec('medusa', tuned)}"])
    return [
        Row(
            f"tokens a pass of Medusa-2, against Medusa-1, with {nodes} nodes",
            measured.tokens_per_pass(drafter),
            "tokens",
            alone,
        ),
        Row(
            "perplexity of the target tuned for Medusa-2, against before (held-out text)",
            quality["perplexity_after"],
            "",
            quality["perplexity_before"],
        ),
        speed_row(report, "medusa-2"),
    ]


def reproduce_hydra(
    data: str | None = None,
    per_category: int | None = None,
    max_new_tokens: int = 128,
    nodes: int = 16,
    repeats: int = 1,
    checkpoint: str | None = None,
    medusa: str | None = None,
    **settings: Any,
) -> Reproduction:
    """Tokens a pass of Hydra++ and Medusa-1 with one and the same tree, and the speed-up.

    Args:
        data: Prompts as JSONL; the built-in ones when not given.
        per_category: Prompts of each category; all when not given.
        max_new_tokens: Output tokens at most.
        nodes: Drafted tokens of the tree that both get: the best one by Medusa's accuracies.
        repeats: How often each prompt is decoded for the speed-up.
        checkpoint, medusa: Folders of the heads; those that come with Ventris when not given.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.
    """
    started = perf_counter()
    measured = OnPrompts(data, per_category, max_new_tokens, repeats, settings)
    tree = grow_from_accuracies(_measured(measured.model, "medusa", medusa)["accuracies"], nodes)
    rows = [
        Row(
            f"tokens a pass of Hydra++, against Medusa-1 with the same tree of {len(tree.paths)} nodes",
            measured.tokens_per_pass(Hydra.load(measured.model, checkpoint, tree, nodes=nodes)),
            "tokens",
            measured.tokens_per_pass(Medusa.load(measured.model, medusa, tree, nodes=nodes)),
        )
    ]
    specs = [f"hydra = {_spec('hydra', checkpoint)}", f"medusa = {_spec('medusa', medusa)}"]
    report = measured.race(specs)
    rows += [speed_row(report, "hydra"), speed_row(report, "medusa")]
    against = compare(report.runs, "hydra", "medusa")
    if against is not None:
        rows.append(Row("speed of Hydra++, as a multiple of Medusa-1's", against.median, "x"))
    return Reproduction("hydra", HYDRA_FIGURE, rows, perf_counter() - started, measured.notes(TRAINING))


def reproduce_eagle3(
    data: str | None = None,
    per_category: int | None = None,
    max_new_tokens: int = 128,
    nodes: int = 16,
    repeats: int = 1,
    checkpoint: str | None = None,
    untested: str | None = None,
    hydra: str | None = None,
    medusa: str | None = None,
    **settings: Any,
) -> Reproduction:
    """Acceptance by depth, tokens a pass against Hydra++ and Medusa-1 with as many nodes, and the speed-up.

    Args:
        data: Prompts as JSONL; the built-in ones when not given.
        per_category: Prompts of each category; all when not given.
        max_new_tokens: Output tokens at most.
        nodes: Drafted tokens of every tree; each method grows its own.
        repeats: How often each prompt is decoded for the speed-up.
        checkpoint, hydra, medusa: Folders of the heads; those that come with Ventris when not given.
        untested: An EAGLE-3 layer that was trained without rehearsing its chains (``--heads 1``), for the
            ablation of training-time test; left out when not given.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.
    """
    started = perf_counter()
    measured = OnPrompts(data, per_category, max_new_tokens, repeats, settings)
    drafter = Eagle.load(measured.model, checkpoint, nodes=nodes)
    rows = [
        Row(f"guess at depth {depth} right, those above it being right (held-out text)", share, "share")
        for depth, share in enumerate(_measured(measured.model, "eagle", checkpoint)["acceptance"], start=1)
    ]
    passes = measured.tokens_per_pass(drafter)
    others: dict[str, Any] = {
        "Hydra++": Hydra.load(measured.model, hydra, nodes=nodes),
        "Medusa-1": Medusa.load(measured.model, medusa, nodes=nodes),
    }
    if untested:
        others["training without rehearsed chains"] = Eagle.load(measured.model, untested, nodes=nodes)
    rows += measured.against(f"with {nodes} nodes", passes, others)
    report = measured.race([f"eagle = {_spec('eagle', checkpoint)}"])
    rows.append(speed_row(report, "eagle"))
    return Reproduction("eagle3", EAGLE_FIGURE, rows, perf_counter() - started, measured.notes(TRAINING))


def full_tree(accuracies: Sequence[Sequence[float]], nodes: int) -> StaticTree:
    """The largest tree of at most ``nodes`` nodes whose levels are complete and binary.

    This is what a tree is without a search: every guess is followed by the two best of the next head.
    """
    paths = [path for depth in range(1, len(accuracies) + 1) for path in product((0, 1), repeat=depth)]
    sizes = [2 ** (depth + 1) - 2 for depth in range(1, len(accuracies) + 1)]
    size = max((size for size in sizes if size <= nodes), default=0)
    chosen = paths[:size]
    return StaticTree(chosen, [accuracy_of_path(accuracies, path) for path in chosen])


def _measured(model: Model, method: str, checkpoint: str | None) -> Any:
    return read_config(find_checkpoint(method, model.target, checkpoint))["measured"]


def _spec(method: str, checkpoint: str | None) -> str:
    return f'{method}:"{checkpoint}"' if checkpoint else method
