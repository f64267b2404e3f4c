"""From results of the mask protocol, and of the test suite, to tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ventris.bench.structured import words
from ventris.bench.structured.mask import MaskResult
from ventris.bench.structured.record import Findings, Table
from ventris.bench.structured.suite import known_cause

MOST_NAMED = 40
"""Wrong results that are listed by name at most."""


def mask_findings(results: Sequence[MaskResult]) -> Findings:
    """Coverage, wrong verdicts and times of every back end, side by side."""
    rows = _by_back_end(results)
    tables: list[Table | None] = [_coverage(rows), _instances(rows), _times(rows)]
    for name, own in rows.items():
        refusals = (keyword_of(r.reason) for r in own if r.status == "refused")
        tables.append(words.counted(f"{name}: refused, by keyword", "keyword or reason", refusals))
        at_end = (keyword for r in own for keyword in r.checked_at_end)
        tables.append(words.counted(f"{name}: left to the check at the end", "keyword", at_end))
    tables.append(_wrong(results))
    shown = [table for table in tables if table is not None]
    return Findings(
        headline=_headline(rows), tables=shown, figures={n: _figures(own) for n, own in rows.items()}
    )


def suite_findings(results: Sequence[MaskResult]) -> Findings:
    """Right and wrong by draft and by file of the official test suite."""
    rows = _by_back_end(results)
    tables: list[Table | None] = []
    for name, own in rows.items():
        drafts = _groups(own, lambda r: r.name.partition("/")[0])
        required = {d: [r for r in some if "/optional/" not in r.name] for d, some in drafts.items()}
        optional = {
            f"{d}, optional": [r for r in some if "/optional/" in r.name] for d, some in drafts.items()
        }
        tables.append(_suite_table(f"{name}: by draft", {**required, **optional}))
        tables.append(_suite_table(f"{name}: by file", _groups(own, lambda r: r.name.partition(": ")[0])))
        refusals = (keyword_of(r.reason) for r in own if r.status == "refused")
        tables.append(words.counted(f"{name}: refused, by keyword", "keyword or reason", refusals))
    tables.append(_wrong(results))
    shown = [table for table in tables if table is not None]
    return Findings(
        headline=_suite_headline(rows), tables=shown, figures={n: _figures(own) for n, own in rows.items()}
    )


def keyword_of(reason: str) -> str:
    """What a refusal is about, so that refusals of one kind are counted together."""
    text = re.sub(r"^guide '[^']*': ", "", reason)
    text = re.sub(r"\$ref '[^']*' ", "$ref ", text)
    text = re.sub(r"'[^']{30,}'|\"[^\"]{30,}\"", "…", text)
    return re.sub(r"\d{3,}", "N", text)[:110]


def _by_back_end(results: Sequence[MaskResult]) -> dict[str, list[MaskResult]]:
    return _groups(results, lambda result: result.back_end)


def _groups(results: Iterable[MaskResult], key: Any) -> dict[str, list[MaskResult]]:
    found: dict[str, list[MaskResult]] = {}
    for result in results:
        found.setdefault(key(result), []).append(result)
    return found


def _accepted(own: Iterable[MaskResult]) -> list[MaskResult]:
    return [result for result in own if result.status == "accepted"]


def _enforced(own: Iterable[MaskResult]) -> list[MaskResult]:
    return [result for result in _accepted(own) if not result.checked_at_end]


def _stopped(own: Iterable[MaskResult]) -> list[MaskResult]:
    return [result for result in own if result.status not in ("accepted", "refused")]


def _coverage(rows: dict[str, list[MaskResult]]) -> Table:
    lines = []
    for name, own in rows.items():
        accepted, wrong = _accepted(own), [r for r in _accepted(own) if r.let_through or r.valid_rejected]
        lines.append(
            [
                name,
                str(len(own)),
                words.share(len(accepted), len(own)),
                words.share(len(_enforced(own)), len(own)),
                words.share(len(accepted) - len(wrong), len(own)),
                str(sum(r.status == "refused" for r in own)),
                str(len(_stopped(own))),
            ]
        )
    note = (
        "Declared: accepted. By construction: no rule is left to a check at the end. Clean: accepted, and no "
        "known instance is judged wrongly. Stopped: time, memory, or a crash; these count as not covered."
    )
    heads = ["back end", "schemas", "declared", "by construction", "clean", "refused", "stopped"]
    return Table(title="Coverage", heads=heads, rows=lines, note=note)


def _instances(rows: dict[str, list[MaskResult]]) -> Table:
    lines = []
    for name, own in rows.items():
        accepted = _accepted(own)

        def count(field: str, accepted: list[MaskResult] = accepted) -> str:
            return str(sum(len(getattr(result, field)) for result in accepted))

        valid, invalid = sum(r.valid for r in accepted), sum(r.invalid for r in accepted)
        lines.append(
            [
                name,
                str(valid),
                count("valid_rejected"),
                count("other_order"),
                str(invalid),
                count("let_through"),
                count("caught_at_end"),
                count("cut_short"),
                count("stopped"),
            ]
        )
    note = (
        "Of the accepted schemas. Other order: allowed, but with the properties in the schema's order "
        "only. Told at the end: every mask allows it, and the check at the end says that it is invalid. "
        "Only cut short: no token is masked but the end is; the public runner would count these as let "
        "through."
    )
    heads = ["back end", "valid", "rejected", "other order", "invalid", "let through", "told at the end"]
    heads += ["only cut short", "stopped"]
    return Table(title="Instances", heads=heads, rows=lines, note=note)


def _times(rows: dict[str, list[MaskResult]]) -> Table:
    lines = []
    for name, own in rows.items():
        for what, values in _seconds(own).items():
            found = words.percentiles(values)
            lines.append([f"{name}: {what}", str(len(values)), *(words.duration(s) for s in found.values())])
    note = (
        "Compile: until the guide can be used. First mask: from the beginning. Between masks: a mask "
        "computed, applied to a row of logits, and a token taken. Each back end on the schemas that it "
        "accepts."
    )
    heads = ["", "count", *(name for name, _ in words.QUANTILES), "max"]
    return Table(title="Times", heads=heads, rows=lines, note=note)


def _seconds(own: Sequence[MaskResult]) -> dict[str, list[float]]:
    accepted = _accepted(own)
    return {
        "compile": [result.compile_seconds for result in accepted],
        "first mask": [result.first_mask_seconds for result in accepted],
        "between masks": [second for result in accepted for second in result.mask_seconds],
    }


def _wrong(results: Sequence[MaskResult]) -> Table | None:
    rows = []
    for result in results:
        for what in ("valid_rejected", "let_through", "stopped"):
            for instance in getattr(result, what):
                cause = known_cause(result.name, what, instance)
                rows.append([result.back_end, result.name, what.replace("_", " "), instance[:100], cause])
        if result.status not in ("accepted", "refused"):
            rows.append([result.back_end, result.name, result.status, result.reason[:100], ""])
    if not rows:
        return None
    note = f"and {len(rows) - MOST_NAMED} more, in the JSON" if len(rows) > MOST_NAMED else ""
    heads = ["back end", "schema", "what", "instance and where it ended", "known cause"]
    return Table(title="Wrong, by name", heads=heads, rows=rows[:MOST_NAMED], note=note, words=True)


def _suite_table(title: str, groups: dict[str, list[MaskResult]]) -> Table:
    lines = []
    for group, own in groups.items():
        if not own:
            continue
        accepted = _accepted(own)
        rejected = sum(len(r.valid_rejected) for r in accepted)
        through = sum(len(r.let_through) for r in accepted)
        total = sum(r.valid + r.invalid for r in accepted)
        stopped = sum(len(r.stopped) for r in accepted)
        refused = sum(r.status == "refused" for r in own)
        lines.append(
            [
                group,
                str(len(own)),
                str(total - rejected - through - stopped),
                str(sum(len(r.other_order) for r in accepted)),
                str(rejected),
                str(through),
                str(sum(len(r.caught_at_end) for r in accepted)),
                str(refused),
                str(len(_stopped(own)) + stopped),
            ]
        )
    note = "Right counts instances, also those in another order or told at the end; refused counts schemas."
    heads = ["", "schemas", "right", "in other order", "wrongly rejected", "let through", "told at the end"]
    return Table(title=title, heads=[*heads, "refused", "stopped"], rows=lines, note=note)


def _figures(own: Sequence[MaskResult]) -> dict[str, Any]:
    accepted = _accepted(own)
    counted = ("valid_rejected", "other_order", "let_through", "caught_at_end", "cut_short")
    return {
        "schemas": len(own),
        "declared_coverage": len(accepted) / len(own),
        "enforced_by_construction": len(_enforced(own)) / len(own),
        "refused": sum(result.status == "refused" for result in own),
        "stopped": [result.name for result in _stopped(own)],
        **{field: sum(len(getattr(result, field)) for result in accepted) for field in counted},
        **{f"{what}_seconds": words.percentiles(values) for what, values in _seconds(own).items()},
    }


def _headline(rows: dict[str, list[MaskResult]]) -> str:
    name, own = next(iter(rows.items()))
    found = _figures(own)
    return (
        f"{name} takes {words.share(len(_accepted(own)), len(own))} of {len(own)} schemas, "
        f"{words.share(len(_enforced(own)), len(own))} by construction; {found['valid_rejected']} valid "
        f"instances are rejected and {found['let_through']} invalid ones let through."
    )


def _suite_headline(rows: dict[str, list[MaskResult]]) -> str:
    name, own = next(iter(rows.items()))
    found, accepted = _figures(own), _accepted(own)
    total = sum(result.valid + result.invalid for result in accepted)
    wrong = found["valid_rejected"] + found["let_through"] + sum(len(r.stopped) for r in accepted)
    return (
        f"{name} judges {total - wrong} of {total} instances rightly in the {len(accepted)} of {len(own)} "
        f"groups that it accepts; {found['valid_rejected']} are wrongly rejected and {found['let_through']}"
        " let through."
    )
