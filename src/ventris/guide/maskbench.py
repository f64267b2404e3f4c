"""MaskBench's protocol: compile real schemas, feed known instances token by token, time every mask.

    python -m ventris.guide.maskbench dev.jsonl.gz --out results.jsonl

No model decodes. Each line of the input holds a ``schema`` and ``tests`` (``data`` and ``valid``). Every
schema is run in a process that is killed when it takes too long. The output has one JSON line a schema; a
second run goes on where the first one stopped. Unlike the public runner, this one also asks whether the text
may *end* where the instance does.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np

from ventris.engine.errors import VentrisError
from ventris.guide.hard import HardState
from ventris.guide.json_schema import JsonSchema
from ventris.guide.vocabulary import ByteTokenizer, vocabulary_of

SEPARATORS = {"compact": (",", ":"), "spaced": (", ", ": "), "flexible": (", ", ": ")}

Case = dict[str, Any]
Result = dict[str, Any]


def run_case(case: Case, tokenizer: ByteTokenizer, whitespace: Any = "spaced") -> Result:
    """One schema: accepted or refused, its instances judged, its masks timed (in seconds)."""
    result: Result = {"name": case["name"], "masks": [], "valid_rejected": [], "invalid_passed": []}
    result["other_order"] = []
    started = perf_counter()
    try:
        guide = JsonSchema(case["schema"], whitespace=whitespace).bind(tokenizer)
    except VentrisError as error:
        return {**result, "status": "refused", "reason": str(error)}
    result["compile"] = perf_counter() - started
    # As a request shows it to a guide: the tokens that end the text.
    request: Any = SimpleNamespace(end_ids=frozenset(tokenizer.eos_ids))
    guide.start(request)._forbidden(tokenizer.vocab_size)
    result["first_mask"] = perf_counter() - started
    enforcement = guide.enforcement
    result["checked_at_end"] = sorted({note.keyword for note in enforcement.checked_at_end})
    for test in case.get("tests", ()):
        text = json.dumps(test["data"], ensure_ascii=False, separators=SEPARATORS[whitespace])
        state = guide.start(request)
        passed, masks = _feed(state, tokenizer.encode(text), tokenizer.vocab_size)
        result["masks"] += masks
        if passed != test["valid"]:
            where = "valid_rejected" if test["valid"] else "invalid_passed"
            if test["valid"] and _in_some_order(guide.start(request), test["data"], whitespace, tokenizer):
                where = "other_order"
            end = state.text().decode(errors="replace")[-60:]
            result[where].append(f"{test.get('description', '')}: {end!r}")
    result["status"] = "accepted"
    return result


def _feed(state: HardState, tokens: Sequence[int], width: int) -> tuple[bool, list[float]]:
    """Whether the tokens, and then the end, are allowed; and what each mask with its step cost."""
    masks = []
    for token in tokens:
        started = perf_counter()
        forbidden = state._forbidden(width)
        if not forbidden[token]:
            state.advance(token)
        masks.append(perf_counter() - started)
        if forbidden[token]:
            return False, masks
    return state.valid, masks


def _in_some_order(state: HardState, data: Any, whitespace: Any, tokenizer: ByteTokenizer) -> bool:
    """Whether the instance passes with its properties in another order, which is the guide's to choose."""
    single = {spelled: token for token, spelled in enumerate(tokenizer.vocabulary_bytes) if len(spelled) == 1}
    comma, colon = SEPARATORS[whitespace]

    def follow(place: HardState, text: str) -> HardState | None:
        twin = place.fork()
        for byte in text.encode():
            twin.advance(single[bytes([byte])])
        return None if twin.broken else twin

    def write(place: HardState, value: Any) -> HardState | None:
        if isinstance(value, dict):
            return write_members(follow(place, "{"), list(value.items()), "")
        if isinstance(value, list):
            here = follow(place, "[")
            for index, item in enumerate(value):
                here = here and follow(here, comma if index else "")
                here = here and write(here, item)
            return here and follow(here, "]")
        return follow(place, json.dumps(value, ensure_ascii=False))

    def write_members(place: HardState | None, members: list[Any], before: str) -> HardState | None:
        if place is None or not members:
            return place and follow(place, "}")
        for index, (key, value) in enumerate(members):
            here = follow(place, before + json.dumps(key, ensure_ascii=False) + colon)
            here = here and write(here, value)
            here = here and write_members(here, members[:index] + members[index + 1 :], comma)
            if here is not None:
                return here
        return None

    end = write(state, data)
    return end is not None and end.valid


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Counts over the schemas, and percentiles of all masks in microseconds."""
    accepted = [result for result in results if result["status"] == "accepted"]
    masks = sorted(second * 1e6 for result in accepted for second in result["masks"])
    by_construction = [result for result in accepted if not result["checked_at_end"]]
    return {
        "schemas": len(results),
        "accepted": len(accepted),
        "declared_coverage": round(len(accepted) / len(results), 4),
        "enforced_by_construction": round(len(by_construction) / len(results), 4),
        "valid_rejected": {r["name"]: r["valid_rejected"] for r in accepted if r["valid_rejected"]},
        "other_order": [r["name"] for r in accepted if r["other_order"]],
        "invalid_passed": {r["name"]: r["invalid_passed"] for r in accepted if r["invalid_passed"]},
        "refused": dict(Counter(r["reason"] for r in results if r["status"] == "refused").most_common()),
        "stopped": [r["name"] for r in results if r["status"] in ("timeout", "crash")],
        "checked_at_end": dict(Counter(k for r in accepted for k in r["checked_at_end"]).most_common()),
        "compile_ms": _percentiles([1e3 * r["compile"] for r in accepted]),
        "first_mask_ms": _percentiles([1e3 * r["first_mask"] for r in accepted]),
        "mask_us": _percentiles(masks),
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    cuts = quantiles(values, n=1000)
    shown = {"p25": 249, "p50": 499, "p75": 749, "p90": 899, "p99": 989, "p99.9": 998}
    found = {name: round(cuts[place], 2) for name, place in shown.items()}
    return {**found, "max": round(max(values), 2), "mean": round(float(np.mean(values)), 2)}


def read_cases(path: Path) -> list[Case]:
    """The cases of a ``.jsonl`` or ``.jsonl.gz`` file."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [json.loads(line) for line in text.split("\n") if line]


def run_all(cases: Sequence[Case], model: str, whitespace: str, seconds: float) -> Iterator[Result]:
    """Results one by one, each from a process that may be killed."""
    context = multiprocessing.get_context("spawn")
    process, pipe = None, None
    for case in cases:
        if process is None or pipe is None:
            pipe, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, model, whitespace), daemon=False)
            process.start()
            theirs.close()
            pipe.recv()
        pipe.send(case)
        try:
            answered = pipe.poll(seconds)
            result = pipe.recv() if answered else {"name": case["name"], "status": "timeout"}
        except EOFError:
            answered, result = False, {"name": case["name"], "status": "crash"}
        if not answered:
            process.kill()
            process = None
        yield result
    if process is not None and pipe is not None:
        pipe.send(None)
        process.join()


def _serve(pipe: Connection, model: str, whitespace: str) -> None:
    tokenizer = _tokenizer(model)
    vocabulary_of(tokenizer)
    pipe.send("ready")
    while (case := pipe.recv()) is not None:
        pipe.send(run_case(case, tokenizer, whitespace))


def _tokenizer(model: str) -> ByteTokenizer:
    """A model's tokenizer, without its weights."""
    from ventris.models.source import resolve

    return resolve(model).tokenizer


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; a run goes on with it")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="whose tokenizer")
    parser.add_argument("--whitespace", default="spaced", choices=list(SEPARATORS))
    parser.add_argument("--seconds", type=float, default=60.0, help="per schema")
    parser.add_argument("--limit", type=int, help="only so many schemas")
    given = parser.parse_args()
    done = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    known = {result["name"] for result in done}
    cases = read_cases(given.data)[: given.limit]
    rest = [case for case in cases if case["name"] not in known]
    with given.out.open("a") as file:
        for result in run_all(rest, given.model, given.whitespace, given.seconds):
            done.append(result)
            file.write(json.dumps(result) + "\n")
            file.flush()
    print(json.dumps(summary(done), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
