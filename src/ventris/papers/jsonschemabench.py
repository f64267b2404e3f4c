"""JSONSchemaBench's claims: what guides cover, what they let through, and what forced text saves."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from ventris.bench.structured.back_ends import DEFAULT, LM_ONLY, chosen
from ventris.bench.structured.record import Findings
from ventris.bench.structured.run import run_structured
from ventris.bench.structured.settings import StructuredSettings
from ventris.papers.reproduction import Reproduction, Row

FIGURE = "9,558 schemas; engines pass 0 to 13 of 45 categories of the official test suite in full"


def reproduce_jsonschemabench(
    data: str | None = None,
    limit: int = 24,
    max_new_tokens: int = 128,
    repeats: int = 1,
    threads: int | None = None,
) -> Reproduction:
    """Coverage with a guide and without, wrong verdicts on known instances, and time with forced text.

    The whole measurement is ``ventris bench structured``; this takes a sample of it.

    Args:
        data: Schemas with instances as JSONL; our own when not given.
        limit: Schemas of the parts in which a model writes.
        max_new_tokens: Output tokens of a document at most.
        repeats: How often the timed part decodes each prompt.
        threads: CPU threads; all available ones when not given.
    """
    started = perf_counter()
    common: dict[str, Any] = {"data": data, "max_new_tokens": max_new_tokens, "threads": threads}

    def measure(protocol: str, **settings: Any) -> Findings:
        given = {"protocol": protocol, **common, **settings}
        return run_structured(StructuredSettings.model_validate(given)).findings

    masks = measure("mask").figures
    written = measure("end-to-end", limit=limit).figures
    cost = measure("cost", limit=limit, repeats=repeats).figures
    rows = [
        Row(
            f"schemas that a greedy answer of {max_new_tokens} tokens satisfies, against no guide",
            written[DEFAULT]["empirical_coverage"],
            "share",
            written[LM_ONLY]["empirical_coverage"],
        )
    ]
    for name in (back_end.name for back_end in chosen(())):
        found = masks[name]
        rows += [
            Row(f"schemas that {name} takes", found["declared_coverage"], "share"),
            Row(f"invalid instances that {name} lets through", float(found["let_through"]), "instances"),
            Row(f"valid instances that {name} rejects", float(found["valid_rejected"]), "instances"),
        ]
    titles = {
        "step": "time of a step under a schema, as a multiple of that without",
        "forced": "time a token with forced text, as a multiple of that without",
    }
    rows += [
        Row(title, cost[name]["value"], "x")
        for name, title in titles.items()
        if cost[name]["value"] is not None
    ]
    notes = [f"{masks[DEFAULT]['schemas']} schemas fed with known instances, {limit} written by a model"]
    return Reproduction("jsonschemabench", FIGURE, rows, perf_counter() - started, notes)
