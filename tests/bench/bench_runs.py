"""Runs and reports made by hand, with figures that are known."""

from __future__ import annotations

from ventris.bench import Question, Report, Run
from ventris.bench.record import BatchRun, Entrant, Environment, ForwardCost, Load

QUESTIONS = [
    Question(f"q{index}", category, tokens=(1, 2, 3, 1, 2, 3, index % 4))
    for index, category in enumerate(["writing", "coding", "rag"])
]


def made_run(contestant: str, question: str, repeat: int, rate: float, **fields: object) -> Run:
    """A run of ``rate`` tokens a second."""
    known: dict[str, object] = {
        "question": question,
        "category": "rag",
        "turn": 0,
        "repeat": repeat,
        "place": 0,
        "contestant": contestant,
        "prompt_tokens": 10,
        "prompt_digest": "p",
        "output_digest": "o",
        "new_tokens": 101,
        "finish": "length",
        "first_token_seconds": 0.1,
        "decode_tokens": 100,
        "decode_seconds": 100 / rate,
        "passes": 51,
        "decode_passes": 50,
    }
    return Run.model_validate({**known, **fields})


def made_report(runs: list[Run], entrants: list[Entrant], batch_runs: list[BatchRun] | None = None) -> Report:
    """A report on runs that were made up."""
    environment = Environment(
        cpu="a processor",
        cores=2,
        threads=2,
        system="Linux",
        versions={"ventris": "0"},
        model="toy",
        runtime="native",
        kernel="avx512",
        dtype="bfloat16",
        weight_bytes=1000,
        load=Load(before=0.1, after=2.0, other_cores=0.0, stolen_cores=0.0),
    )
    return Report(
        created="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        settings={"repeats": 2, "seed": 0},
        environment=environment,
        entrants=entrants,
        runs=runs,
        forward_cost=ForwardCost(sizes=[1, 8, 16], seconds=[0.010, 0.012, 0.02]),
        batch_runs=batch_runs or [],
    )
