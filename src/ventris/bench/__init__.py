"""``ventris bench``: decoding methods compared fairly, in one process and in turn.

    from ventris.bench import BenchSettings, run_bench

    report = run_bench(BenchSettings(methods=["autoregressive", "ngram"], repeats=3))

The names below are imported when they are first used: settings and help texts need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ventris.bench.claims import Claim, ClaimsReport, measure_claims, run_claims
    from ventris.bench.methods import Method, parse_method, parse_methods
    from ventris.bench.prompts import load_questions
    from ventris.bench.question import Question
    from ventris.bench.record import Report, Run
    from ventris.bench.report.files import read_report, write_report
    from ventris.bench.report.progress import progress_bar
    from ventris.bench.report.table import print_claims, print_report
    from ventris.bench.runner import run_bench
    from ventris.bench.settings import BenchSettings, read_settings

_HOME = {
    "BenchSettings": "ventris.bench.settings",
    "Claim": "ventris.bench.claims",
    "ClaimsReport": "ventris.bench.claims",
    "Method": "ventris.bench.methods",
    "Question": "ventris.bench.question",
    "Report": "ventris.bench.record",
    "Run": "ventris.bench.record",
    "load_questions": "ventris.bench.prompts",
    "measure_claims": "ventris.bench.claims",
    "parse_method": "ventris.bench.methods",
    "parse_methods": "ventris.bench.methods",
    "print_claims": "ventris.bench.report.table",
    "print_report": "ventris.bench.report.table",
    "progress_bar": "ventris.bench.report.progress",
    "read_report": "ventris.bench.report.files",
    "read_settings": "ventris.bench.settings",
    "run_bench": "ventris.bench.runner",
    "run_claims": "ventris.bench.claims",
    "write_report": "ventris.bench.report.files",
}

__all__ = [
    "BenchSettings",
    "Claim",
    "ClaimsReport",
    "Method",
    "Question",
    "Report",
    "Run",
    "load_questions",
    "measure_claims",
    "parse_method",
    "parse_methods",
    "print_claims",
    "print_report",
    "progress_bar",
    "read_report",
    "read_settings",
    "run_bench",
    "run_claims",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ventris.bench' has no attribute {name!r}")
