"""``ventris train``: draft heads and judges for a target, from its own answers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ventris.cli.command_options import with_options
from ventris.cli.option_fields import option_fields
from ventris.cli.streams import console, error_console
from ventris.engine.errors import BadInput
from ventris.train.judge_settings import JudgeSettings
from ventris.train.medusa2_settings import Medusa2Settings
from ventris.train.settings import (
    AlignedSettings,
    ChimeraSettings,
    EagleSettings,
    FalconSettings,
    FormSettings,
    HydraSettings,
    KangarooSettings,
    LongSpecSettings,
    MedusaSettings,
    OmniDraftSettings,
    PlaceSettings,
    TargetSettings,
    read_settings,
)
from ventris.train.threshold_settings import ThresholdSettings

if TYPE_CHECKING:
    from ventris.train.texts import Progress
    from ventris.train.trainer import Trained

SHAPE = (
    "shortlist",
    "own_rows",
    "heads",
    "layers",
    "block",
    "mixer",
    "left_out",
    "vocabulary",
    "hidden",
    "context_length",
    "start",
    "exit_layer",
    "feed_forward",
    "sliding_window",
    "variant",
    "rank",
    "alpha",
    "prefix",
    "dropout",
    "layer",
)
PLACES = ("model", "data", "out", "cache", "device", "dtype", "threads")


def register(app: typer.Typer) -> None:
    """Add the command with one subcommand for each method."""
    group = typer.Typer(
        no_args_is_help=True, help="Train a drafter or a judge for a target, from the target's own answers."
    )
    for command, settings in METHODS:
        fields = tuple(option_fields(settings, _panel))
        group.command(command.__name__)(
            with_options(command, "settings", fields, (), partial(_read, settings))
        )
    group.command("tasks")(tasks)
    app.add_typer(group, name="train")


def medusa(settings: MedusaSettings) -> None:
    """Medusa heads: K guesses from one hidden row, independent of each other."""
    from ventris.train.medusa import train_medusa

    _run(train_medusa, settings)


def medusa2(settings: Medusa2Settings) -> None:
    """Medusa-2: Medusa heads and the target tuned together, which makes a new target."""
    from ventris.train.medusa2 import train_medusa2

    with _progress() as progress:
        tuned = train_medusa2(settings, progress, _command())
    quality = tuned.quality
    _say_acceptance(tuned.trained)
    console().print(
        f"against the original, on held-out answers: KL {quality.kl:.4f} nats a token, same likeliest token "
        f"at {quality.agreement:.1%}, perplexity {quality.perplexity_ratio - 1:+.2%}",
        highlight=False,
        soft_wrap=True,
    )
    error_console().print(
        f"the tuned target is in {settings.out}; use it with --model {settings.out} --draft "
        f"medusa:{settings.out}",
        style="dim",
        markup=False,
        soft_wrap=True,
    )


def hydra(settings: HydraSettings) -> None:
    """Hydra and Hydra++ heads: each guess sees the guesses before it."""
    from ventris.train.hydra import train_hydra

    _run(train_hydra, settings)


def eagle(settings: EagleSettings) -> None:
    """EAGLE-3: one decoder layer over three layers of the target, going on from its own features."""
    from ventris.train.eagle import train_eagle

    _run(train_eagle, settings)


def aligned(settings: AlignedSettings) -> None:
    """An aligned draft model: a small decoder on the target's embedding, by direct alignment."""
    from ventris.train.aligned import train_aligned

    _run(train_aligned, settings)


def kangaroo(settings: KangarooSettings) -> None:
    """Kangaroo: one attention layer behind the target's own first layers."""
    from ventris.train.kangaroo import train_kangaroo

    _run(train_kangaroo, settings)


def falcon(settings: FalconSettings) -> None:
    """Falcon: an LSTM and one decoder layer that guess two tokens a pass."""
    from ventris.train.falcon import train_falcon

    _run(train_falcon, settings)


def chimera(settings: ChimeraSettings) -> None:
    """Chimera: a trigram encoder and one layer over the target's own rows, with fused heads."""
    from ventris.train.chimera import train_chimera

    _run(train_chimera, settings)


def longspec(settings: LongSpecSettings) -> None:
    """LongSpec: one block of constant memory that reads the target's last-layer keys and values."""
    from ventris.train.longspec import train_longspec

    _run(train_longspec, settings)


def judge(settings: JudgeSettings) -> None:
    """A judge of drafted tokens: a logistic unit that tells right ones from wrong ones."""
    from ventris.train.judge import train_judge

    with _progress() as progress:
        measured = train_judge(settings, progress, _command()).measured
    console().print(
        f"on questions held out: area under the curve {measured['area']:.3f}; at threshold "
        f"{measured['threshold']:.4f} {measured['passed']:.1%} of the right tokens pass and "
        f"{measured['caught']:.1%} of the wrong ones are caught",
        highlight=False,
        soft_wrap=True,
    )
    _say_where(settings)


def thresholds(settings: ThresholdSettings) -> None:
    """Fit the two thresholds of Big Little Decoder to a pair of models, on tasks whose answers are scored."""
    from ventris.train.thresholds import described, train_thresholds

    with _progress() as progress:
        fitted = train_thresholds(settings, progress)
    for name, pair in (("chosen", fitted.chosen), ("exact", fitted.exact)):
        console().print(f"{name}: {pair}: {described(fitted, pair)}", highlight=False, soft_wrap=True)
    error_console().print(
        f"the settings are in {settings.out}; use them with --config {settings.out}",
        style="dim",
        markup=False,
        soft_wrap=True,
    )


def tasks(
    out: Annotated[Path, typer.Option(help="JSONL file to write")],
    count: Annotated[int, typer.Option(help="tasks", metavar="N", min=1)] = 1000,
    wording: Annotated[
        int | None, typer.Option(help="which of four wordings; any if not given", metavar="N", min=1, max=4)
    ] = None,
    unanswered: Annotated[
        bool, typer.Option("--unanswered", help="leave the answers to the target that is trained for")
    ] = False,
    seed: Annotated[int, typer.Option(help="start of the random stream", metavar="N")] = 0,
) -> None:
    """Write generated tasks, with right answers that are worded unlike the target's or with none."""
    from ventris.train.fact_tasks import fact_tasks, write_answers, write_questions

    if unanswered and wording is not None:
        raise BadInput("--unanswered writes no answers, so there is no --wording to choose; give one of them")
    made = fact_tasks(count, seed)
    if unanswered:
        write_questions(out.expanduser(), made)
    else:
        write_answers(out.expanduser(), made, None if wording is None else wording - 1, seed)


def forms(settings: FormSettings) -> None:
    """Write generated JSON schemas with the target's documents, so that a drafter learns form as well."""
    from ventris.train.form_tasks import form_tasks, write_documents
    from ventris.train.run import load_target

    with _progress() as progress:
        tasks = list(form_tasks(settings.count, settings.seed))
        written = write_documents(load_target(settings, progress), tasks, settings, progress)
    console().print(f"{written} of {len(tasks)} documents were finished", highlight=False)


def omnidraft(settings: OmniDraftSettings) -> None:
    """A draft model for OmniDraft: a small decoder with a vocabulary of its own, for targets of any."""
    from ventris.train.omnidraft import train_omnidraft

    _run(train_omnidraft, settings)


METHODS: tuple[tuple[Callable[..., None], type[TargetSettings]], ...] = (
    (medusa, MedusaSettings),
    (medusa2, Medusa2Settings),
    (hydra, HydraSettings),
    (eagle, EagleSettings),
    (aligned, AlignedSettings),
    (kangaroo, KangarooSettings),
    (falcon, FalconSettings),
    (chimera, ChimeraSettings),
    (longspec, LongSpecSettings),
    (omnidraft, OmniDraftSettings),
    (judge, JudgeSettings),
    (forms, FormSettings),
    (thresholds, ThresholdSettings),
)


def _run(run: Callable[..., Trained], settings: PlaceSettings) -> None:
    with _progress() as progress:
        trained = run(settings, progress, _command())
    _say_acceptance(trained)
    _say_where(settings)


def _say_acceptance(trained: Trained) -> None:
    shares = " ".join(f"{share:.3f}" for share in trained.acceptance)
    console().print(f"held-out acceptance by depth: {shares}", highlight=False)


def _command() -> str:
    """The command line, for the model card."""
    return shlex.join(["ventris", *map(_without_folder, sys.argv[1:])])


def _say_where(settings: PlaceSettings) -> None:
    error_console().print(f"the checkpoint is in {settings.out}", style="dim", markup=False, soft_wrap=True)


def _without_folder(argument: str) -> str:
    """An argument as a model card may show it: where files lie on this machine is nobody else's business."""
    return Path(argument).name if argument.startswith(("/", "~", ".")) else argument


def _read(model: type[TargetSettings], given: Mapping[str, Any]) -> TargetSettings:
    return read_settings(model, given)


def _panel(key: str) -> str:
    if key in PLACES:
        return "Places"
    return "Network" if key in SHAPE else "Training"


@contextmanager
def _progress() -> Iterator[Progress]:
    """A moving bar on a terminal, a line for each phase and tenth elsewhere."""
    if not sys.stderr.isatty():
        yield _TenthsAsLines()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=error_console(), refresh_per_second=2) as bar:
        task = bar.add_task("starting", total=None)

        def told(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield told


class _TenthsAsLines:
    def __init__(self) -> None:
        self.said: tuple[str, int] | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        phase = what.partition(":")[0]
        tenth = (phase, 10 * done // total if total else 0)
        if tenth != self.said:
            self.said = tenth
            print(f"ventris: {what} ({done} of {total})", file=sys.stderr)
