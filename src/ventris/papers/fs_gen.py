"""FS-GEN's central claims: how often the large model is needed, where, who could tell, and by what law."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from ventris.papers.reproduction import Reproduction, Row
from ventris.study.files import write_study
from ventris.study.law import LawFound
from ventris.study.profiles import DRAFTED
from ventris.study.record import StudyReport
from ventris.study.run import run_study
from ventris.study.settings import read_settings

FIGURE = (
    "the large model is needed at fewer than 20 % of the tokens, by a law in the ratio of sizes (Qwen1.5)"
)


def reproduce_fs_gen(**settings: Any) -> Reproduction:
    """The study of ``ventris study`` as rows; with ``out`` its report with plots besides.

    Args:
        settings: Those of ``ventris study``, such as ``model``, ``small``, ``data`` and ``out``.
    """
    started = perf_counter()
    chosen = read_settings(settings)
    found = run_study(chosen)
    report = found.report
    notes = [f"{report.model} in {report.computed}, {report.prompts}", *report.warnings]
    if chosen.out is not None:
        write_study(found, chosen.out)
        notes.append(f"the report with plots is in {chosen.out}")
    rows = [*_needed(report), *_by_size(report, notes), *_by_routers(report, notes)]
    return Reproduction("fs-gen", FIGURE, rows, perf_counter() - started, notes)


def _needed(report: StudyReport) -> list[Row]:
    rows = []
    for pair in report.pairs:
        profile, name = pair.profile, f"{pair.small} ({pair.ratio:.3g} times smaller), {pair.method}"
        if profile.frequency.value is None:
            continue
        rows.append(Row(f"needed by {name}", 100 * profile.frequency.value, "% of tokens"))
        if profile.first_tenth.value is not None and profile.rest.value is not None:
            rows.append(
                Row(
                    f"needed in the first tenth of an answer, against later, by {name}",
                    100 * profile.first_tenth.value,
                    "% of tokens",
                    100 * profile.rest.value,
                )
            )
        if profile.passes.value is not None:
            title = f"passes of the large model with {DRAFTED} tokens drafted by {name}"
            rows.append(Row(title, 100 * profile.passes.value, "% of tokens", 100.0))
        if pair.method != "oracle":
            title = f"likeness of the text to the large model's own, with {name}"
            rows.append(Row(title, pair.likeness, "ROUGE-L"))
        area = profile.areas["confidence"]
        if area is not None:
            title = f"area under the curve of the best probability, against a coin, for {name}"
            rows.append(Row(title, area.value, "", 0.5))
    return rows


def _by_size(report: StudyReport, notes: list[str]) -> list[Row]:
    rows = []
    for method, law in report.laws.items():
        if not isinstance(law, LawFound):
            notes.append(f"no law for {method}: {law}")
            continue
        title = f"R² of the law for {method} on its {law.points} points, against a line in ln R"
        rows.append(Row(title, law.r_squared, "", law.line[0]))
        if law.left_out is not None:
            title = f"R² of it on ratios left out, against the line's, {method}"
            rows.append(Row(title, law.left_out, "", law.line[1]))
        if law.law.at_bound:
            notes.append(f"the law for {method} stands at the bound of {', '.join(law.law.at_bound)}")
    return rows


def _by_routers(report: StudyReport, notes: list[str]) -> list[Row]:
    if isinstance(report.routers, str):
        notes.append(f"no routers: {report.routers}")
        return []
    rows = [
        Row(f"area under the curve of the router {router.name}, against a coin", router.area.value, "", 0.5)
        for router in report.routers
    ]
    for run in report.routed.runs if report.routed is not None else ():
        found, coin = run.found, run.random
        if found.closed is not None and coin.closed is not None:
            title = (
                f"gap closed by {run.router} with {100 * found.rate:.0f} % calls, against random ones "
                f"({100 * coin.rate:.0f} %)"
            )
            rows.append(Row(title, 100 * found.closed, "%", 100 * coin.closed))
    return rows
