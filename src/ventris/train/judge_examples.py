"""Labelled hidden rows: what the target's rows were at each marked token, computed once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from random import Random

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ventris.draft.target_sketch import TargetSketch
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Target
from ventris.model import Model
from ventris.models.cache_folder import written_whole
from ventris.parts import parse
from ventris.train.fact_tasks import fact_tasks
from ventris.train.hidden_states import check_layer
from ventris.train.judge_settings import JudgeSettings
from ventris.train.marked_answers import Mark, MarkedAnswer, MarkedQuestion, mark, of_task, read_marked
from ventris.train.run import training_cache
from ventris.train.swaps import answer_tasks, find_by_swaps
from ventris.train.target_key import TargetKey
from ventris.train.texts import Progress


@dataclass(frozen=True, slots=True)
class Examples:
    """One entry a marked token.

    Attributes:
        rows: What the target made of the token, the token read: bfloat16 ``[n, hidden]``.
        marks: :class:`Mark`, uint8 ``[n]``.
        question: Which question it belongs to, int32 ``[n]``.
        family: Index into ``families``, int32 ``[n]``.
        swapped: The mark was found by a swap, bool ``[n]``.
        families: Names.
    """

    rows: Tensor
    marks: Tensor
    question: Tensor
    family: Tensor
    swapped: Tensor
    families: tuple[str, ...]

    def of(self, chosen: Tensor) -> Examples:
        """Those that a bool or index tensor chooses."""
        return Examples(
            self.rows[chosen],
            self.marks[chosen],
            self.question[chosen],
            self.family[chosen],
            self.swapped[chosen],
            self.families,
        )

    @property
    def right(self) -> Tensor:
        """Labels, bool ``[n]``."""
        return self.marks == Mark.RIGHT

    def save(self, path: Path) -> None:
        tensors = {name: getattr(self, name) for name in ("rows", "marks", "question", "family", "swapped")}
        with written_whole(path) as temporary:
            temporary.write_bytes(save(tensors, {"families": json.dumps(self.families)}))

    @classmethod
    def load(cls, path: Path) -> Examples:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return cls(**tensors, families=tuple(json.loads(file.metadata()["families"])))


def prepare_examples(model: Model, settings: JudgeSettings, progress: Progress | None = None) -> Examples:
    """The labelled rows of a run, made or found in the cache.

    Raises:
        BadInput: for data or families that cannot be used, a layer that the target does not have, or a model
            without a tokenizer.
    """
    target = model.target
    layer = target.num_layers if settings.layer is None else settings.layer
    check_layer(target, layer)
    if model.tokenizer is None:
        raise BadInput(f"{settings.model} has no tokenizer; a judge is trained on texts")
    key = TargetKey.of(model, TargetSketch.of(target, model.tokenizer.fingerprint))
    digest = hashlib.sha256(repr((*astuple(key), sorted(settings.examples().items()))).encode())
    for file in _files_of(settings):
        try:
            digest.update(file.read_bytes())
        except OSError as error:
            raise BadInput(f"cannot read {file}: {error}") from None
    path = training_cache(settings) / f"judge-{digest.hexdigest()[:16]}.safetensors"
    if not path.is_file():
        questions = marked_questions(model, settings, progress)
        read_examples(target, questions, layer, progress).save(path)
    return Examples.load(path)


def _files_of(settings: JudgeSettings) -> Iterator[Path]:
    """The data, and what tells a trained drafter from another one in the same folder."""
    if settings.data is not None:
        yield Path(settings.data).expanduser()
    for part in parse(settings.draft) if settings.draft else ():
        for value in part.options.values():
            config = Path(str(value)).expanduser() / "config.json"
            if config.is_file():
                yield config


def marked_questions(
    model: Model, settings: JudgeSettings, progress: Progress | None = None
) -> list[MarkedQuestion]:
    """Generated tasks and given data with all their marked answers."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise BadInput("a judge is trained on texts; load a model with a tokenizer")
    tasks = fact_tasks(settings.tasks, settings.seed, families=settings.families)
    questions = [MarkedQuestion(model.request(task.question).prompt, task.family) for task in tasks]
    answers = answer_tasks(model, tasks, settings, progress) if tasks else []
    if settings.labels != "swaps":
        random = Random(settings.seed)
        for question, task, done in zip(questions, tasks, answers, strict=True):
            own = done.text if task.accepts(done.text) else None
            question.answers += of_task(task, tokenizer, random, own)
    if settings.labels != "marked":
        found = find_by_swaps(model, tasks, answers, settings, progress)
        for question, marked in zip(questions, found, strict=True):
            question.answers += marked
    if settings.data is not None:
        for line in read_marked(settings.data, settings.limit, settings.seed):
            answer = mark(tokenizer, line.answer, line.wrong_at)
            questions.append(MarkedQuestion(model.request(line.question).prompt, line.family, [answer]))
    return [question for question in questions if question.answers]


def read_examples(
    target: Target, questions: Sequence[MarkedQuestion], layer: int, progress: Progress | None = None
) -> Examples:
    """Let the target read all answers, and keep the rows of their marked tokens.

    Raises:
        BadInput: if no token is marked right, or none wrong.
    """
    families = tuple(sorted({question.family for question in questions}))
    by_prompt: dict[tuple[int, ...], int] = {}
    rows: list[Tensor] = []
    facts: list[tuple[int, int, int, bool]] = []
    for number, question in enumerate(questions):
        if progress:
            progress("reading answers", number, len(questions))
        index = by_prompt.setdefault(tuple(question.prompt), len(by_prompt))
        family = families.index(question.family)
        for answer, read in zip(
            question.answers, answer_rows(target, question.prompt, question.answers, layer), strict=True
        ):
            known = [place for place, found in enumerate(answer.marks) if found != Mark.UNKNOWN]
            rows.append(read[known].to(torch.bfloat16))
            facts += [(int(answer.marks[place]), index, family, answer.swapped) for place in known]
    marks, of, kinds, swapped = zip(*facts, strict=True) if facts else ((), (), (), ())
    if not {Mark.RIGHT, Mark.WRONG} <= set(marks):
        raise BadInput("no token is marked right, or none wrong; give more tasks or data")
    return Examples(
        torch.cat(rows),
        torch.tensor(marks, dtype=torch.uint8),
        torch.tensor(of, dtype=torch.int32),
        torch.tensor(kinds, dtype=torch.int32),
        torch.tensor(swapped, dtype=torch.bool),
        families,
    )


@torch.no_grad()
def answer_rows(
    target: Target, prompt: Sequence[int], answers: Sequence[MarkedAnswer], layer: int
) -> list[Tensor]:
    """The inputs of a layer at every token of several answers to one prompt, each float32 ``[n, hidden]``.

    Prompt and answers are read as one tree, so what several answers begin with is read once.
    """
    tokens, parents = list(prompt), list(range(-1, len(prompt) - 1))
    known: dict[tuple[int, int], int] = {}
    paths = []
    for answer in answers:
        node, path = len(prompt) - 1, []
        for token in answer.tokens:
            if (node, token) not in known:
                known[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = known[node, token]
            path.append(node)
        paths.append(path)
    cache = target.new_cache(len(tokens))
    hidden = target.forward([Rows(cache, tokens, parents, wanted=())], (layer,)).hidden[layer]
    cache.release()
    return [hidden[path].float().cpu() for path in paths]
