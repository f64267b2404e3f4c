"""``make demo``: answer a prompt on the embedded model, then show what drafting does to the speed."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ventris.engine.errors import VentrisError
from ventris.engine.request import Completion

TOKENS = 160
REPEATS = 3
PROMPT = (
    "Repeat this text word for word, then say in one sentence what it is about: The old harbour of Vellmar "
    "was built in 1871 to load timber from the inland forests. For sixty years it was the busiest port on "
    "that coast. Last spring the council decided to dredge the basin again, so that sailing boats can reach "
    "the quay."
)
"""Half copying, half telling, so that it shows what drafting is good for."""


def main(prompt: str) -> int:
    """Run the demo and return the exit code."""
    console = Console()
    try:
        show(prompt, console)
    except VentrisError as error:
        Console(stderr=True).print(f"ventris: error: {error}", highlight=False, markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("\ninterrupted")
        return 130
    return 0


def show(prompt: str, console: Console) -> None:
    """Load, stream an answer, and compare ways of decoding it."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("loading smollm2-135m-instruct", total=None)
        import ventris

        def told(message: str, share: float | None) -> None:
            progress.update(
                task, description=message, total=1.0 if share is not None else None, completed=share
            )

        model = ventris.load(progress=told)
        progress.update(task, description="measuring the cost of larger steps (once)", total=None)
        model.cost_curve()
    console.print(f"[bold]You:[/] {prompt}")
    console.print("[bold]Model:[/] ", end="")
    for piece in model.stream(prompt, max_new_tokens=TOKENS):
        print(piece.text, end="", flush=True)
    print("\n")
    ways: dict[str, dict[str, Any]] = {
        "autoregressive": {},
        "drafting: ngram": {"draft": "ngram"},
        "sampled, seed 1": {"temperature": 0.8, "seed": 1},
        "sampled, seed 1, drafting: ngram": {"temperature": 0.8, "seed": 1, "draft": "ngram"},
    }
    runs: dict[str, list[Completion]] = {name: [] for name in ways}
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("timing", total=REPEATS * len(ways))
        for _ in range(REPEATS):
            for name, settings in ways.items():
                runs[name].append(model.generate(prompt, max_new_tokens=TOKENS, **settings))
                progress.advance(task)
    console.print(_table(runs))
    same = all(
        runs[plain][0].tokens == runs[drafted][0].tokens
        for plain, drafted in (list(ways)[:2], list(ways)[2:])
    )
    for name in list(ways)[1::2]:
        guarantee = runs[name][0].guarantee
        console.print(f"{name}: {guarantee.statement}" if guarantee else name, highlight=False)
    console.print(f"Same tokens with and without drafting, greedy and sampled: {'yes' if same else 'NO'}")


def _table(runs: dict[str, list[Completion]]) -> Table:
    table = Table("decoding", "tokens/s", "speed-up", "tokens a pass", "guarantee")
    names = list(runs)
    for index, (name, completions) in enumerate(runs.items()):
        baseline = runs[names[index - index % 2]]
        speed, reference = _median(completions), _median(baseline)
        stats, guarantee = completions[0].stats, completions[0].guarantee
        table.add_row(
            name,
            f"{speed:.0f}",
            f"{speed / reference:.2f}x" if reference else "",
            f"{stats.tokens_per_step:.2f}",
            "exact" if guarantee and guarantee.exact else "approximate",
        )
    return table


def _median(completions: list[Completion]) -> float:
    speeds = sorted(completion.stats.tokens_per_second for completion in completions)
    return speeds[len(speeds) // 2]


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:]) or PROMPT))
