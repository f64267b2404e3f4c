"""Kangaroo's central claims: stopping on low confidence, what the adapter is worth, and where to exit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from time import perf_counter
from typing import Any

import torch

from ventris.draft.checkpoint import find_checkpoint, open_checkpoint
from ventris.draft.decoder_beside import config_of
from ventris.draft.kangaroo import Kangaroo, KangarooNetwork
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.engine.errors import BadInput
from ventris.engine.request import Completion
from ventris.papers.on_prompts import OnPrompts, speed, tokens_per_pass
from ventris.papers.reproduction import Reproduction, Row
from ventris.train.first_weights import passing_weights

FIGURE = "up to 1.68 times as fast as plain decoding, with 88.7 % fewer new weights than Medusa-1 (Vicuna-7B)"


def reproduce_kangaroo(
    checkpoint: str | None = None,
    feed_forward: str | None = None,
    exits: Sequence[str] = (),
    depth: int = 6,
    confidence: float = 0.6,
    data: str | None = None,
    per_category: int | None = None,
    max_new_tokens: int = 128,
    repeats: int = 1,
    **settings: Any,
) -> Reproduction:
    """The confidence stop against a fixed length, the adapter against none, and a sweep of exit layers.

    Args:
        checkpoint: Folder of the adapter; the one that comes with Ventris when not given.
        feed_forward: Folder of one with a feed-forward part, as the control.
        exits: Folders of adapters behind other layers, one for each.
        depth: Tokens drafted ahead at most.
        confidence: Where the stop lies.
        data: Prompts as JSONL; the built-in ones when not given.
        per_category: Prompts of each category; all when not given.
        max_new_tokens: Output tokens at most.
        repeats: How often each prompt is decoded for the speeds.
        settings: Further settings of ``ventris bench``, such as ``model`` and ``dtype``.

    Raises:
        BadInput: before anything is measured, if a folder holds no adapter of the model, or two of them exit
            at one layer.
    """
    if isinstance(exits, str):
        raise BadInput(f"exits is {exits!r}; give a list of folders, exits=[{exits}]")
    started = perf_counter()
    measured = OnPrompts(data, per_category, max_new_tokens, repeats, settings)
    folder = str(find_checkpoint("kangaroo", measured.model.target, checkpoint))
    layers = _exit_layers(measured, [folder, *exits])
    fixed = _drafted(measured, folder, depth, 0.0)
    stopped = _drafted(measured, folder, depth, confidence)
    rows = [
        Row(
            f"tokens a deep pass, stopping below {confidence:g}, against {depth} always",
            tokens_per_pass(stopped),
            "tokens",
            tokens_per_pass(fixed),
        ),
        Row("drafted tokens a deep pass, likewise", _drafts(stopped), "tokens", _drafts(fixed)),
    ]
    specs = {"stopping": (folder, confidence), "fixed": (folder, 0.0)}
    specs |= {f"exit-{place}": (other, confidence) for place, other in enumerate(exits)}
    report = measured.race(
        [
            f'{name} = kangaroo:"{where}",depth={depth},confidence={least} @ fixed'
            for name, (where, least) in specs.items()
        ]
    )
    name = f"speed, stopping below {confidence:g}, as a multiple of plain decoding's, against {depth} always"
    rows.append(Row(name, speed(report, "stopping"), "x", speed(report, "fixed")))
    rows.append(
        Row(
            "tokens a deep pass, fixed length, against no adapter",
            tokens_per_pass(fixed),
            "tokens",
            tokens_per_pass(measured.answers(draft=_bare(measured, folder, depth), policy="fixed")),
        )
    )
    if feed_forward is not None:
        other = tokens_per_pass(_drafted(measured, feed_forward, depth, 0.0))
        name = "tokens a deep pass, fixed length, against an adapter with a feed-forward part"
        rows.append(Row(name, tokens_per_pass(fixed), "tokens", other))
    for place, (where, layer) in enumerate(zip([folder, *exits], layers, strict=True)):
        answers = fixed if where == folder else _drafted(measured, where, depth, 0.0)
        name = f"tokens a deep pass, fixed length, exit at layer {layer}"
        rows.append(Row(name, tokens_per_pass(answers), "tokens"))
        for count, share in enumerate(all_accepted(answers), start=1):
            rows.append(
                Row(f"first {count} drafts all accepted (CTAR), exit at layer {layer}", share, "share")
            )
        timed = speed(report, "stopping" if where == folder else f"exit-{place - 1}")
        rows.append(
            Row(f"speed with the exit at layer {layer}, as a multiple of plain decoding's", timed, "x")
        )
    return Reproduction("kangaroo", FIGURE, rows, perf_counter() - started, measured.notes())


def all_accepted(answers: Sequence[Completion]) -> list[float]:
    """How often the first w drafts were all accepted, for w = 1, 2, …, of the drafts of fixed length."""
    drafts = max(sum(sum(done.stats.proposed_by_depth[:1]) for done in answers), 1)
    kept = [sum(counts) for counts in zip_longest(*(d.stats.accepted_by_depth for d in answers), fillvalue=0)]
    return [count / drafts for count in kept]


def _exit_layers(measured: OnPrompts, folders: Sequence[str]) -> list[int]:
    checkpoints = [open_checkpoint("kangaroo", measured.model, folder)[1] for folder in folders]
    layers: list[int] = [stored.sizes["exit_layer"] for stored in checkpoints]
    for layer in layers:
        if layers.count(layer) > 1:
            raise BadInput(f"two of these adapters exit at layer {layer}; give one for each layer")
    return layers


def _drafts(answers: Sequence[Completion]) -> float:
    return sum(done.stats.drafted for done in answers) / max(sum(done.stats.steps for done in answers), 1)


def _drafted(measured: OnPrompts, folder: str, depth: int, confidence: float) -> list[Completion]:
    drafter = Kangaroo.load(measured.model, folder, depth=depth, confidence=confidence)
    return measured.answers(draft=drafter, policy="fixed")


def _bare(measured: OnPrompts, folder: str, depth: int) -> Kangaroo:
    """The target's own final norm and head over the rows of the exit layer."""
    model = measured.model
    trained = Kangaroo.network_of(*open_checkpoint("kangaroo", model, folder))
    if model.source is None:
        raise BadInput("the control without an adapter needs a model that was loaded by name")
    shortlist = Shortlist(trained.vocabulary.ids, model.target.vocab_size)
    head = TargetHead.of(model.source, shortlist)
    network = KangarooNetwork(config_of(model.target), trained.exit_layer, len(shortlist), "stored")
    network.vocabulary.begin(shortlist, head)
    torch.manual_seed(0)
    network.begin(passing_weights(network.config, head))
    return Kangaroo(model.target, network, depth=depth, confidence=0.0)
