"""A study as one self-contained page: no script, nothing fetched, light and dark."""

from __future__ import annotations

from html import escape

from ventris.bench.report.charts import Line, Point, fitted_chart, legend, line_chart, nice_ticks
from ventris.bench.report.html import page, section, table
from ventris.bench.report.wording import DASH
from ventris.study.areas import Area
from ventris.study.law import EXPONENTS, LEAST, LawFound
from ventris.study.profiles import DRAFTED, Bin
from ventris.study.record import Pair, StudyReport
from ventris.study.routed import RoutedRuns
from ventris.study.shares import Share

FEWEST_TOKENS = 5
"""Tokens of a tenth below which no point is drawn for it."""

TICKS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]

DEFINITIONS = {
    "frequency": "collaboration frequency: the share of tokens that the small model would not have written, "
    "along the text that the two wrote together with the large model always asked",
    "oracle": "the large model's own greedy token; exact speculative decoding writes the same, and keeps "
    "drafts of one token at a share of 1 minus the frequency",
    "contrast": "(1 + w) l - w s with w = 0.5, over the tokens that the small model knows and the large one "
    "finds plausible",
    "interpolate": "s + w (l - s) with w = 0.5 over the same tokens; contrastive in the paper's code",
    "mixture": "half of each model's probabilities",
    "proxy": "l + (f - s) with the tuned small model f; it is f whose token is compared",
    "passes": f"passes of the large model a token, were the small one to draft {DRAFTED} tokens ahead in "
    "exact speculative decoding of the same text; 1 without drafts",
    "place": "t/T: how many tokens precede, by the length of the answer",
    "intervals": "95 % bootstrap over whole answers, since tokens of one answer hang together; none stands "
    "where all or none of the tokens count, as there is nothing to resample",
    "closed gap": "likeness (ROUGE-L) to the large model's own answers, 0 where the small model alone stands "
    "and 1 where the large one does",
}


def render_page(report: StudyReport) -> str:
    """The whole page as HTML."""
    body = [
        _warnings(report),
        _how_often(report),
        _where(report),
        _when(report),
        _law(report),
        _routers(report),
        _routed(report.routed),
        _settings(report),
        section("Definitions", table([], [[escape(k), escape(v)] for k, v in DEFINITIONS.items()], "words")),
    ]
    facts = f"{report.prompts} · {report.computed} · {report.created.replace('T', ' ')[:19]} UTC"
    return page(
        title=f"Ventris study: {report.model}",
        heading=f"When small models need {report.model}",
        lead=headline(report),
        facts=facts,
        body=body,
        command="ventris study",
    )


def _warnings(report: StudyReport) -> str:
    lines = "<br>".join(escape(warning[0].upper() + warning[1:]) + "." for warning in report.warnings)
    return f'<p class="warning">{lines}</p>' if lines else ""


def headline(report: StudyReport) -> str:
    """The study in one or two sentences."""
    pair = report.pairs[0]
    found = pair.profile
    text = (
        f"{pair.small}, {pair.ratio:.3g} times smaller, needs {report.model} at "
        f"{percent(found.frequency)} of the tokens"
    )
    if found.first_tenth.value is not None and found.rest.value is not None:
        text += (
            f": {plain(found.first_tenth.value)} in the first tenth of an answer, "
            f"{plain(found.rest.value)} after it"
        )
    return text + "."


def percent(value: Share) -> str:
    """A share with its interval, in words."""
    if value.value is None:
        return DASH
    if value.low is None or value.high is None:
        return plain(value.value)
    return f"{plain(value.value)} ({100 * value.low:.1f}{DASH}{100 * value.high:.1f})"


def plain(value: float | None) -> str:
    """A share in per cent."""
    return DASH if value is None else f"{100 * value:.1f} %"


def _colours(report: StudyReport) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(p.small for p in report.pairs))}


def _how_often(report: StudyReport) -> str:
    heads = ["small model", "method", "parameters", "times smaller", "tokens", "frequency"]
    heads += ["first tenth", "after it", "passes"]
    rows = [
        [
            escape(pair.small),
            escape(pair.method),
            f"{pair.parameters / 1e6:.3g} M",
            f"{pair.ratio:.3g}",
            str(pair.profile.frequency.tokens),
            _cell(pair.profile.frequency),
            _cell(pair.profile.first_tenth),
            _cell(pair.profile.rest),
            _cell(pair.profile.passes),
        ]
        for pair in report.pairs
    ]
    kinds = dict.fromkeys((pair.small, pair.kind) for pair in report.pairs)
    said = "; ".join(f"{name}: {kind}" for name, kind in kinds)
    note = (
        f'<p class="note">The large model has {report.parameters / 1e6:.4g} M parameters. {escape(said)}. '
        "The paper (Qwen1.5, 0.5B to 72B) says under 20 %; its own data go up to 29 % for the oracle and to "
        "34 % in proxy tuning.</p>"
    )
    return section("How often", table(heads, rows) + note + _texts(report))


def _texts(report: StudyReport) -> str:
    """How far the rules that change the text take it from the large model's own."""
    rows = [
        [escape(pair.small), escape(pair.method), f"{pair.likeness:.1f}", f"{pair.nats:.3f}"]
        for pair in report.pairs
        if pair.method != "oracle"
    ]
    if not rows:
        return ""
    note = (
        '<p class="note">What these rules write is not the large model\'s own text. Likeness: ROUGE-L to '
        "that, 0 to 100. Nats a token: -ln p under the large model.</p>"
    )
    return table(["small model", "method", "likeness", "nats a token"], rows) + note


def _where(report: StudyReport) -> str:
    pairs, colours = _one_method(report), _colours(report)
    lines = [_line(pair, pair.profile.positions, colours[pair.small]) for pair in pairs]
    chart = line_chart(lines, "place in the answer, t/T", "share of tokens it is needed at", TICKS, 1.0)
    note = f'<p class="note">Method: {escape(pairs[0].method)}. A point for each tenth of the answers '
    note += f"that holds {FEWEST_TOKENS} tokens or more.</p>"
    return section("Where", _legend(lines) + chart + note)


def _when(report: StudyReport) -> str:
    pairs, colours = _one_method(report), _colours(report)
    lines = [_line(pair, pair.profile.confidences, colours[pair.small]) for pair in pairs]
    chart = line_chart(
        lines, "the small model's largest probability", "share of tokens it is needed at", TICKS, 1.0
    )
    first = pairs[0]
    kinds = [
        Line("needed", [(_middle(b), b.of_mismatches or 0.0) for b in first.profile.confidences], 1),
        Line("not needed", [(_middle(b), b.of_matches or 0.0) for b in first.profile.confidences], 0),
    ]
    title = f'<p class="note">How those tokens lie for {escape(first.small)}:</p>'
    shares = line_chart(kinds, "the small model's largest probability", "share of its kind", TICKS)
    names = list(first.profile.areas)
    heads = ["area under the ROC curve", *names]
    rows = [[escape(pair.small), *(_area(pair.profile.areas[name]) for name in names)] for pair in pairs]
    note = (
        '<p class="note">How well one number tells the tokens where the large model is needed: '
        "0.5 is a coin, 1 is never wrong.</p>"
    )
    return section(
        "When", _legend(lines) + chart + title + _legend(kinds) + shares + table(heads, rows) + note
    )


def _law(report: StudyReport) -> str:
    found = {method: law for method, law in report.laws.items() if isinstance(law, LawFound)}
    missing = "".join(
        f'<p class="note">{escape(method)}: {escape(law)}.</p>'
        for method, law in report.laws.items()
        if isinstance(law, str)
    )
    if not found:
        return section("By size", missing)
    shade = {method: number for number, method in enumerate(found)}
    points = [
        Point(f"{p.small}, {p.method}", p.ratio, f.value or 0.0, f.low, f.high, shade[p.method])
        for p in report.pairs
        if p.method in found
        for f in (p.profile.frequency,)
    ]
    chart = fitted_chart(
        points,
        [(shade[method], law.curve) for method, law in found.items()],
        "parameters of the large model by those of the small one",
        "frequency",
    )
    heads = ["method", "pairs", "a", "alpha", "b", "R²", "R², left out", "line: R²", "left out"]
    rows = []
    for method, law in found.items():
        fitted = law.law
        values = {"a": fitted.a, "alpha": fitted.alpha, "b": fitted.b, "r_squared": law.r_squared}
        cells = [
            f"{value:.3g}"
            f'<span class="interval">{law.intervals[n][0]:.2g}{DASH}{law.intervals[n][1]:.2g}</span>'
            + ('<span class="interval">at its bound</span>' if n in fitted.at_bound else "")
            for n, value in values.items()
        ]
        line, line_left_out = law.line
        rows.append(
            [
                escape(method),
                str(law.points),
                *cells,
                DASH if law.left_out is None else f"{law.left_out:.2f}",
                f"{line:.2f}",
                DASH if line_left_out is None else f"{line_left_out:.2f}",
            ]
        )
    note = (
        '<p class="note">frequency = -a R<sup>-alpha</sup> + b, all three at least '
        f"{LEAST:g} as in the paper, alpha at most {EXPONENTS[-1]:g}; intervals by resampling the answers. "
        "Three parameters on so few points fit almost anything, so believe R² on the ratios left out, each "
        "predicted from the others: below 0, their mean would do better. The line, b0 + b1 ln R, "
        "has a parameter less.</p>"
    )
    keys = legend(list(found), list(shade.values()))
    return section("By size", keys + chart + table(heads, rows) + note + missing)


def _routers(report: StudyReport) -> str:
    name = escape(report.pairs[0].small)
    if isinstance(report.routers, str):
        return section("Routers", f'<p class="note">{escape(report.routers)}.</p>')
    lines = [Line(router.name, router.curve, place) for place, router in enumerate(report.routers)]
    chance = Line("random", [(tick, tick) for tick in TICKS], len(lines))
    chart = line_chart(
        [*lines, chance], "share of tokens called", "share of needed tokens caught", TICKS, 1.0
    )
    heads = ["router", "area", "to catch", "call from", "caught", "tokens called"]
    rows = [
        [
            escape(router.name) if not place else "",
            _area(router.area) if not place else "",
            f"{100 * cut.wanted:.0f} %",
            call_from(router.name, cut.score),
            _cell(cut.caught),
            _cell(cut.calls),
        ]
        for router in report.routers
        for place, cut in enumerate(router.cuts)
    ]
    learned = next((router for router in report.routers if router.expected is not None), None)
    note = (
        f'<p class="note">For {name} and the large model\'s own choice. Cuts were chosen on every second '
        "answer and judged on the others, which these figures are of. A cut on the confidence is the policy "
        "<code>confidence-stop</code>.</p>"
    )
    if learned is not None:
        note += (
            f'<p class="note">The learned router expects the large model to be needed at '
            f"{plain(learned.expected)} of the tokens held out; it was at {plain(learned.seen)}.</p>"
        )
    return section("Routers", _legend([*lines, chance]) + chart + table(heads, rows) + note)


def call_from(router: str, score: float) -> str:
    """A cut of a router in the terms of its signal."""
    wording = {
        "confidence": f"best probability ≤ {1 - score:.3f}",
        "margin": f"lead on the second ≤ {1 - score:.3f}",
        "entropy": f"entropy ≥ {score:.3f} nats",
    }
    return wording.get(router, f"score ≥ {score:.3f}")


def _routed(routed: RoutedRuns | None) -> str:
    if routed is None:
        return ""
    start = (0.0, routed.small_likeness)
    lines: list[Line] = []
    for name in dict.fromkeys(run.router for run in routed.runs):
        runs = [run for run in routed.runs if run.router == name]
        for title, found in (
            (name, [run.found for run in runs]),
            (f"random, as often as {name}", [run.random for run in runs]),
        ):
            points = sorted((quality.rate, quality.likeness) for quality in found)
            lines.append(Line(title, [start, *points], len(lines)))
    ticks = nice_ticks(0.0, max(x for line in lines for x, _ in line.points))
    chart = line_chart(lines, "share of tokens called", "likeness to the large model", ticks)
    heads = [
        "router",
        "wanted",
        "call from",
        "called",
        "likeness",
        "gap closed",
        "more than random",
        "nats a token",
    ]
    rows = [_quality_row("the small model alone", DASH, 0.0, routed.small_likeness, "0 %", routed.small_nats)]
    for run in routed.runs:
        for title, one in ((run.router, run.found), ("random calls", run.random)):
            closed = DASH if one.closed is None else f"{_points(one.closed)} %" + _ends(one.interval)
            row = _quality_row(title, plain(run.wanted), one.rate, one.likeness, closed, one.nats)
            if one is run.found and run.score is not None:
                row[2] = call_from(run.router, run.score)
            if one is run.found and run.gain is not None:
                row[6] = f"{_points(run.gain[0])} to {_points(run.gain[1])}"
            rows.append(row)
    rows.append(_quality_row("the large model alone", DASH, 1.0, 100.0, "100 %", routed.large_nats))
    note = (
        f'<p class="note">{escape(routed.small)} writes and the large model is called by the router, on the '
        f"{routed.answers} answers that routers were judged on. Called: the share of tokens that it then "
        "came to; random calls come beside it at that share. More than random: 95 % interval of the "
        "difference in the gap closed, in points. Nats a token: -ln p under the large model; a text that "
        "repeats itself is likely too, so read it beside the likeness.</p>"
    )
    return section("Decoding with routers", _legend(lines) + chart + table(heads, rows) + note)


def _quality_row(name: str, wanted: str, rate: float, likeness: float, closed: str, nats: float) -> list[str]:
    return [escape(name), wanted, DASH, plain(rate), f"{likeness:.1f}", closed, DASH, f"{nats:.3f}"]


def _ends(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return ""
    return f'<span class="interval">{_points(interval[0])} to {_points(interval[1])}</span>'


def _points(value: float) -> str:
    """A share as whole per cent; what rounds to 0 has no sign."""
    return str(round(100 * value))


def _settings(report: StudyReport) -> str:
    rows = [
        [
            escape(name.replace("_", " ")),
            escape(", ".join(map(str, value)) if isinstance(value, list) else str(value)),
        ]
        for name, value in report.settings.items()
        if value not in (None, [], "")
    ]
    return section("Settings", table([], rows, "words"))


def _one_method(report: StudyReport) -> list[Pair]:
    """The pairs of the method named first, for charts of one line a pair."""
    return report.of(report.pairs[0].method)


def _line(pair: Pair, bins: list[Bin], colour: int) -> Line:
    points = [
        (_middle(b), b.mismatches.value)
        for b in bins
        if b.mismatches.value is not None and b.mismatches.tokens >= FEWEST_TOKENS
    ]
    return Line(pair.small, points, colour)


def _middle(bin: Bin) -> float:
    return (bin.low + bin.high) / 2


def _legend(lines: list[Line]) -> str:
    return legend([line.name for line in lines], [line.colour for line in lines])


def _cell(value: Share) -> str:
    if value.low is None or value.high is None:
        return plain(value.value)
    ends = f"{100 * value.low:.1f}{DASH}{100 * value.high:.1f}"
    return f'{plain(value.value)}<span class="interval">{ends}</span>'


def _area(found: Area | None) -> str:
    if found is None:
        return DASH
    if found.low is None or found.high is None:
        return f"{found.value:.3f}"
    return f'{found.value:.3f}<span class="interval">{found.low:.3f}{DASH}{found.high:.3f}</span>'
