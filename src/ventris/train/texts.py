"""Self-distillation: the target answers prompts, and its answers are what drafters learn from.

A folder of texts holds ``texts.json`` (what was asked for) and one file for each few prompts. Every file is
written whole, and what it holds is a function of the settings alone, so a run that was killed goes on with
the next file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from ventris.engine.errors import BadInput
from ventris.models.cache_folder import written_whole
from ventris.models.checkpoint_writing import write_json
from ventris.train.recorder import Bits, Recorder
from ventris.train.settings import TextSettings

if TYPE_CHECKING:
    from ventris.model import Model

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

KeepRows = Callable[[Path, Bits], None]
"""Given the tapped rows of a file of texts, ``[tokens, taps, d]``, just before that file is written."""

SHARD = 256
"""Prompts answered between two files."""


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """A line of the data: a prompt to answer, a prompt with its answer, or a text to learn as it stands.

    Attributes:
        answered: The content is a prompt, not a text.
        answer: What is to be said to it; empty where the target is to answer.
    """

    content: str
    answered: bool
    answer: str = ""


def read_prompts(path: str | Path, limit: int | None = None) -> list[PromptRecord]:
    """Read JSONL whose lines have a ``prompt`` (to be answered) or a ``text`` (to be learnt as it is).

    A prompt with an ``answer`` is answered already: that is learnt in place of the target's own.

    Raises:
        BadInput: naming the first line that has neither.
    """
    records: list[PromptRecord] = []
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if limit is not None and len(records) == limit:
                    break
                if line.strip():
                    records.append(_record(line, f"{path}, line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None
    if not records:
        raise BadInput(f"{path} holds no prompts; write one JSON object with 'prompt' or 'text' a line")
    return records


def _record(line: str, place: str) -> PromptRecord:
    try:
        given = json.loads(line)
    except ValueError as error:
        raise BadInput(f"{place} is no JSON: {error}") from None
    for key in ("prompt", "text"):
        if isinstance(given, dict) and isinstance(given.get(key), str) and given[key]:
            answer = given.get("answer", "") if key == "prompt" else ""
            if not isinstance(answer, str):
                raise BadInput(f"{place}: the answer is {answer!r}; it must be a text")
            return PromptRecord(given[key], key == "prompt", answer)
    raise BadInput(f"{place} has neither 'prompt' nor 'text'")


@dataclass(frozen=True, slots=True)
class TextShard:
    """Some texts, one behind the other.

    Attributes:
        tokens: int32 ``[n]``.
        answer: Which of them the target said, bool ``[n]``.
        starts: Where each text begins, and the end of the last one, int64 ``[texts + 1]``.
        prompt: Index of each text's prompt in the data, int64 ``[texts]``.
        temperature: At which each was answered, float32 ``[texts]``; NaN for given texts.
    """

    tokens: NDArray[np.int32]
    answer: NDArray[np.bool_]
    starts: NDArray[np.int64]
    prompt: NDArray[np.int64]
    temperature: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.prompt)

    def save(self, path: Path) -> None:
        with written_whole(path) as temporary:
            temporary.write_bytes(save({name: getattr(self, name) for name in self.__slots__}))

    @classmethod
    def load(cls, path: Path) -> TextShard:
        return cls(**load_file(path))


def prompts_digest(prompts: Sequence[PromptRecord]) -> str:
    """Key for what depends on the prompts."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(f"{prompt.answered}:{len(prompt.content)}:{prompt.content}".encode())
        if prompt.answer:
            digest.update(f"{len(prompt.answer)}:{prompt.answer}".encode())
    return digest.hexdigest()[:16]


def distil_texts(
    model: Model,
    prompts: Sequence[PromptRecord],
    folder: Path,
    settings: TextSettings,
    batch: int = 16,
    progress: Progress | None = None,
    taps: Sequence[int] = (),
    keep_rows: KeepRows | None = None,
) -> list[Path]:
    """Let the model answer the prompts; files that are there already are kept.

    Prompts that leave no room in the model's context are left out, with their answers if they have some.

    Args:
        folder: Where the files go.
        batch: Prompts answered side by side. The texts do not depend on it, up to the rounding of the
            kernels.
        taps: Layers whose rows are kept while the answers are written.
        keep_rows: Where they go, for files that hold answers alone.

    Returns:
        The files, in order.

    Raises:
        BadInput: if the folder holds texts of other prompts or settings.
    """
    # Numbers that must agree with what an earlier run wrote here.
    manifest = {"prompts": prompts_digest(prompts), "count": len(prompts), **asdict(settings)}
    claim_folder(folder / "texts.json", manifest)
    jobs = [(index, index + turn) for turn in range(settings.passes) for index in range(len(prompts))]
    files = []
    for number, first in enumerate(range(0, len(jobs), SHARD)):
        path = folder / f"texts-{number:05}.safetensors"
        files.append(path)
        if progress:
            progress("answering prompts", first, len(jobs))
        if not path.is_file():
            some = jobs[first : first + SHARD]
            shard, rows = _answer(model, prompts, some, first, settings, batch, taps)
            if keep_rows is not None and rows is not None:
                keep_rows(path, rows)
            shard.save(path)
    return files


def claim_folder(path: Path, manifest: dict[str, Any]) -> None:
    """Write down what a folder is for, or check that it is for the same.

    Raises:
        BadInput: naming the first setting that differs.
    """
    wanted = json.loads(json.dumps(manifest))
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = next((key for key in wanted if found.get(key) != wanted[key]), None)
        if differing is not None:
            raise BadInput(
                f"{path.parent} belongs to a run with {differing} = {found.get(differing)!r}, not "
                f"{wanted[differing]!r}; choose another folder, or remove it"
            )
        return
    write_json(path, wanted)


def _answer(
    model: Model,
    prompts: Sequence[PromptRecord],
    jobs: Sequence[tuple[int, int]],
    first: int,
    settings: TextSettings,
    batch: int,
    taps: Sequence[int],
) -> tuple[TextShard, Bits | None]:
    """The texts of some jobs, with their tapped rows if all of them were answered."""
    from ventris.prompts import Prompt

    asked: list[tuple[int, float, Any, Recorder]] = []
    given: list[tuple[int, list[int], list[int]]] = []
    for offset, (index, turn) in enumerate(jobs):
        record = prompts[index]
        temperature = settings.temperatures[turn % len(settings.temperatures)]
        tokens = list(model.request(record.content, raw=not record.answered).prompt)
        if not record.answered:
            given.append((index, [], tokens[: model.target.context_length]))
        elif record.answer and model.tokenizer is not None:
            room = model.target.context_length - len(tokens)
            said = [*model.tokenizer.encode(record.answer), *model.tokenizer.eos_ids[:1]]
            if room > 0:
                given.append((index, tokens, said[:room]))
        elif len(tokens) <= min(settings.max_prompt_tokens, model.target.context_length - 1):
            recorder = Recorder(taps)
            own: dict[str, Any] = {"temperature": temperature, "seed": settings.seed + first + offset}
            if taps:
                own |= {"draft": recorder, "policy": "fixed"}
            asked.append((index, temperature, Prompt(tokens, own), recorder))
    completions = (
        model.generate(
            [prompt for _, _, prompt, _ in asked],
            max_batch=batch,
            max_new_tokens=settings.max_new_tokens,
            top_p=settings.top_p,
        )
        if asked
        else []
    )
    answered = [
        (index, temperature, list(done.prompt), done.tokens, recorder)
        for (index, temperature, _, recorder), done in zip(asked, completions, strict=True)
        if done.error is None
    ]
    rows = None
    if taps and answered and not given:
        rows = np.concatenate([recorder.rows(len(p) + len(a)) for _, _, p, a, recorder in answered])
    texts = [
        *((index, temperature, p, a) for index, temperature, p, a, _ in answered),
        *((index, float("nan"), prompt, said) for index, prompt, said in given),
    ]
    shard = TextShard(
        tokens=np.array([t for _, _, p, a in texts for t in (*p, *a)], dtype=np.int32),
        answer=np.array(
            [said for _, _, p, a in texts for said in [False] * len(p) + [True] * len(a)], dtype=bool
        ),
        starts=np.cumsum([0, *(len(p) + len(a) for _, _, p, a in texts)], dtype=np.int64),
        prompt=np.array([index for index, *_ in texts], dtype=np.int64),
        temperature=np.array([temperature for _, temperature, *_ in texts], dtype=np.float32),
    )
    return shard, rows
