"""The report as one self-contained page: no script, nothing fetched, light and dark."""

from __future__ import annotations

from html import escape

from ventris.bench.record import Report
from ventris.bench.report import wording
from ventris.bench.report.charts import Bar, Dot, Line, dot_plot, legend, line_chart, stacked_bars
from ventris.bench.report.html import page, section, table
from ventris.bench.statistics import Ratio
from ventris.bench.summary import DEFINITIONS, OVERALL, Summary, summarize

PARTS = ("target", "draft", "guide", "verify", "other")
"""Parts of a step in the order of the bars."""


def render_page(report: Report) -> str:
    """The whole page as HTML."""
    summary = summarize(report)
    environment = report.environment
    sections = [
        *(f'<p class="warning">Warning: {escape(warning)}</p>' for warning in report.warnings),
        _overall(summary),
        _by_category(summary),
        _acceptance(summary),
        _parts(summary),
        _forward_cost(report),
        _batches(summary),
        _entrants(report),
        _environment(report),
        _definitions(),
    ]
    questions = len({run.question for run in report.runs})
    repeats = report.settings.get("repeats")
    facts = (
        f"{questions} questions, {repeats} repeats, {len(report.runs)} runs in {report.seconds:.0f} s, "
        f"methods interleaved in one process · {environment.cpu}, {environment.threads} threads · "
        f"{report.created.replace('T', ' ').removesuffix('+00:00')} UTC"
    )
    return page(
        title=f"Ventris bench: {environment.model}",
        heading=environment.model,
        lead=wording.headline(report, summary),
        facts=facts,
        body=sections,
    )


def _overall(summary: Summary) -> str:
    if not summary.entrants:
        return ""
    peers = any(entrant.kind == "peer" for entrant in summary.entrants)
    heads = ["method", "tokens/s", "speed-up", "tokens per pass", "first token", "outside the target"]
    heads += ["bandwidth", "memory", "identical"]
    if peers:
        heads.insert(3, "against Ventris")
    rows = []
    for entrant in summary.entrants:
        cell = summary.cells[entrant.name, OVERALL]
        row = [
            escape(entrant.name),
            wording.speed(cell.tokens_per_second),
            "baseline" if entrant.plain == entrant.name else _ratio(cell.speedup),
            wording.tokens_per_pass(cell.tokens_per_pass),
            wording.milliseconds(cell.first_token_seconds),
            wording.share(cell.outside_target),
            wording.bandwidth(cell.bandwidth),
            wording.megabytes(cell.peak_growth),
            escape(wording.identical(cell)),
        ]
        if peers:
            row.insert(3, _ratio(cell.against_ours))
        rows.append(row)
    return section("All prompts", table(heads, rows))


def _by_category(summary: Summary) -> str:
    others = [entrant for index, entrant in enumerate(summary.entrants) if index > 0]
    if not others:
        return ""
    colours = {entrant.name: index + 1 for index, entrant in enumerate(others)}
    plot = dot_plot(
        [
            (
                category,
                [
                    Dot(
                        entrant.name,
                        summary.cells[entrant.name, category].against_ours,
                        colours[entrant.name],
                    )
                    for entrant in others
                ],
            )
            for category in summary.categories
        ],
        f"tokens/s by those of {summary.entrants[0].name}, with 95 % intervals",
    )
    first = summary.entrants[0]
    heads = ["category", "questions", f"{first.name}, tokens/s", *(entrant.name for entrant in others)]
    rows = []
    for category in summary.categories:
        plain = summary.cells[first.name, category]
        figures = []
        for entrant in others:
            cell = summary.cells[entrant.name, category]
            speed = wording.speed(cell.tokens_per_second)
            figures.append(f'<span title="{speed} tokens/s">{_ratio(cell.against_ours)}</span>')
        speed = wording.speed(plain.tokens_per_second)
        rows.append([escape(category), str(plain.questions), speed, *figures])
    note = '<p class="note">A hollow dot: the interval covers 1, or there are too few runs for one.</p>'
    keys = legend([entrant.name for entrant in others], list(colours.values()))
    figures_table = table(heads, rows, total=len(summary.categories) > 1)
    return section("Speed by category, against plain decoding", keys + plot + note + figures_table)


def _acceptance(summary: Summary) -> str:
    lines = [
        Line(
            entrant.name,
            [(depth + 1, share) for depth, share in enumerate(cell.acceptance)],
            index,
        )
        for index, entrant in enumerate(summary.entrants)
        if (cell := summary.cells[entrant.name, OVERALL]).acceptance
    ]
    if not lines:
        return ""
    deepest = max(len(line.points) for line in lines)
    chart = line_chart(lines, "depth of the draft", "share kept", range(1, deepest + 1), 1.0)
    keys = legend([line.name for line in lines], [line.colour for line in lines])
    return section("Acceptance by depth", keys + chart)


def _parts(summary: Summary) -> str:
    bars = [
        Bar(entrant.name, [(part, cell.parts.get(part, 0.0)) for part in PARTS])
        for entrant in summary.entrants
        if (cell := summary.cells[entrant.name, OVERALL]).parts
    ]
    if not bars:
        return ""
    colours = {part: index for index, part in enumerate(PARTS)}
    return section(
        "Decode time by part", legend(PARTS) + stacked_bars(bars, colours, "share of decode time by part")
    )


def _forward_cost(report: Report) -> str:
    cost = report.forward_cost
    if cost is None:
        return ""
    points = [(float(size), 1000 * seconds) for size, seconds in zip(cost.sizes, cost.seconds, strict=True)]
    shown = [size for size in cost.sizes if size in (1, 4, 8, 12, 16, 24, 32, 48, 64)]
    chart = line_chart([Line("T(n)", points, 0)], "nodes in one forward", "milliseconds", shown)
    figures_table = table(
        ["nodes", *map(str, cost.sizes)], [["ms", *(f"{1000 * seconds:.1f}" for seconds in cost.seconds)]]
    )
    ratio = cost.eight_to_one
    note = f'<p class="note">T(8)/T(1) = {ratio:.2f}</p>' if ratio else ""
    return section("Cost of a forward, T(n)", chart + note + figures_table)


def _batches(summary: Summary) -> str:
    if not summary.batches:
        return ""
    size = summary.batches[0].size
    rows = [
        [
            escape(cell.contestant),
            wording.speed(cell.alone),
            wording.speed(cell.together),
            _ratio(cell.ratio),
        ]
        for cell in summary.batches
    ]
    return section(
        f"Batch of {size}, total tokens/s", table(["method", "batch 1", f"batch {size}", "ratio"], rows)
    )


def _entrants(report: Report) -> str:
    rows = []
    for entrant in report.entrants:
        spec = ", ".join(f"{key} {value}" for key, value in entrant.spec.items())
        said = f"did not run: {entrant.missing}" if entrant.missing else entrant.statement
        rows.append([escape(entrant.name), escape(said), escape(spec or wording.DASH)])
    return section("What was compared", table(["name", "guarantee or configuration", "parts"], rows, "words"))


def _environment(report: Report) -> str:
    environment, load = report.environment, report.environment.load
    facts = {
        "processor": f"{environment.cpu}, {environment.cores} cores, {environment.threads} threads used",
        "GPU": environment.gpu,
        "memory": wording.megabytes(environment.memory_bytes) if environment.memory_bytes else None,
        "system": environment.system,
        "versions": ", ".join(f"{name} {version}" for name, version in environment.versions.items()),
        "commit": environment.commit,
        "model": f"{environment.model} ({environment.fingerprint})" if environment.fingerprint else None,
        "runtime": f"{environment.runtime} {environment.kernel}".strip(),
        "numbers": environment.dtype,
        "weights": wording.megabytes(environment.weight_bytes) if environment.weight_bytes else None,
        "load average": f"{load.before} before, {load.after} after",
        "cores used by others": None if load.other_cores is None else f"{load.other_cores:.2f} on average",
        "cores taken by the hypervisor": None if load.stolen_cores is None else f"{load.stolen_cores:.2f}",
        "settings": ", ".join(
            f"{name} {value}" for name, value in report.settings.items() if value not in (None, [], "")
        ),
    }
    rows = [[name, escape(value)] for name, value in facts.items() if value]
    return section("Environment", table([], rows, "words"))


def _definitions() -> str:
    rows = [[escape(name), escape(text)] for name, text in DEFINITIONS.items()]
    return section("Definitions", table([], rows, "words"))


def _ratio(value: Ratio | None) -> str:
    if value is None:
        return wording.DASH
    if value.low is None or value.high is None:
        few = '<span class="interval">too few runs</span>'
        return f'<span class="none">{value.median:.2f}{wording.TIMES}{few}</span>'
    interval = f'<span class="interval">{value.low:.2f}{wording.DASH}{value.high:.2f}</span>'
    if value.verdict == "no difference":
        return f'<span class="none">no difference</span>{interval}'
    return f'<span class="{value.verdict}">{value.median:.2f}{wording.TIMES}</span>{interval}'
