"""The end-to-end protocol: a model writes a document for every schema, under every back end and without.

Source: Geng et al. 2025, and the official harness: a system line, example pairs of the same source, the
schema as the user's turn; greedy, one answer a schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from ventris.bench.clock import Clock
from ventris.bench.prepare import load_model, ready_threads
from ventris.bench.schedule import rotated
from ventris.bench.structured.back_ends import LM_ONLY, chosen
from ventris.bench.structured.cases import Case, stratified
from ventris.bench.structured.feed import SEPARATORS
from ventris.bench.structured.mask import Status
from ventris.bench.structured.settings import StructuredSettings
from ventris.bench.structured.validators import judge
from ventris.engine.errors import VentrisError

if TYPE_CHECKING:
    from ventris.model import Model
    from ventris.models.tokenizer import Tokenizer

SYSTEM = "You need to generate a JSON object that matches the schema below."
"""The harness's system line."""

EXAMPLES = 2
"""Example pairs before the schema, as in the paper."""

LONGEST_EXAMPLE = 1500
"""Letters of an example's schema and document together."""

FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```", re.DOTALL)

Message = dict[str, str]


class Document(BaseModel):
    """What one back end made of one schema.

    Attributes:
        reason: Of a refusal or another end before time; else the first complaint of a validator.
        compile_seconds: Until the guide is ready; 0 without one.
        first_token_seconds: From the beginning, compiling and reading the prompt included.
        token_seconds: Between tokens, behind the first one; ``None`` for a single token.
        finished: The text ended by itself, within the most tokens.
        said_valid: What the user is told; ``None`` where nobody checks.
        parses: The text is JSON.
        reference, second: Verdicts of ``jsonschema`` and ``jsonschema-rs``; ``None`` where there is none.
        unfenced: It would be valid without the code fence around it.
    """

    name: str
    source: str
    back_end: str
    status: Status = "accepted"
    reason: str = ""
    compile_seconds: float = 0.0
    first_token_seconds: float = 0.0
    token_seconds: float | None = None
    prompt_tokens: int = 0
    new_tokens: int = 0
    finished: bool = False
    said_valid: bool | None = None
    text: str = ""
    parses: bool = False
    reference: bool | None = None
    second: bool | None = None
    unfenced: bool = False
    checked_at_end: list[str] = Field(default_factory=list)

    @property
    def valid(self) -> bool:
        """JSON that no validator objects to."""
        known = [one for one in (self.reference, self.second) if one is not None]
        return self.parses and bool(known) and all(known)

    @property
    def disagree(self) -> bool:
        return None not in (self.reference, self.second) and self.reference != self.second


@dataclass(frozen=True, slots=True)
class Task:
    """One schema for one back end, as it is sent to the worker."""

    case: Case
    messages: tuple[Message, ...]
    back_end: str


def messages_for(case: Case, examples: Sequence[Case], whitespace: str) -> tuple[Message, ...]:
    """The prompt: the system line, the example pairs, and the schema."""
    said = [{"role": "system", "content": SYSTEM}]
    for example in examples:
        document = next(test.data for test in example.tests if test.valid)
        answer = json.dumps(document, ensure_ascii=False, separators=SEPARATORS[whitespace])
        said += [
            {"role": "user", "content": json.dumps(example.json_schema, ensure_ascii=False)},
            {"role": "assistant", "content": answer},
        ]
    return (*said, {"role": "user", "content": json.dumps(case.json_schema, ensure_ascii=False)})


def examples_of(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """For every source the short schemas with a valid document, from the shortest; none may be asked about.

    The harness ships example pairs of its own; ours are taken from the data.
    """
    found: dict[str, list[tuple[int, Case]]] = {}
    for case in cases:
        documents = [json.dumps(test.data) for test in case.tests if test.valid]
        size = len(json.dumps(case.json_schema)) + len(documents[0]) if documents else LONGEST_EXAMPLE + 1
        if size <= LONGEST_EXAMPLE:
            found.setdefault(case.source, []).append((size, case))
    # The middle of the sizes: the very shortest schemas show little.
    chosen: dict[str, list[Case]] = {}
    for source, sized in found.items():
        ordered = [case for _, case in sorted(sized, key=lambda pair: (pair[0], pair[1].name))]
        middle = max((len(ordered) - EXAMPLES) // 2, 0)
        chosen[source] = ordered[middle : middle + EXAMPLES]
    return chosen


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked.

    Attributes:
        tasks: In the order in which they run: every schema under all back ends in turn.
        too_long: Schemas whose prompt is longer than allowed; they were left out before the sample was drawn.
    """

    tasks: list[Task]
    schemas: int
    too_long: int


def plan(
    cases: Sequence[Case],
    back_ends: Sequence[str],
    tokenizer: Tokenizer,
    limit: int,
    seed: int,
    whitespace: str,
    max_prompt_tokens: int,
) -> Plan:
    """Choose the schemas and write their prompts."""
    pairs = examples_of(cases)
    shown = {case.name for some in pairs.values() for case in some}
    fallback = next(iter(pairs.values()), [])
    prompts: dict[str, tuple[Message, ...]] = {}
    asked = [case for case in cases if case.name not in shown]
    for case in asked:
        said = messages_for(case, pairs.get(case.source, fallback), whitespace)
        # A token has a letter at least; most of the long ones need not be split.
        letters = sum(len(message["content"]) for message in said)
        if letters < 8 * max_prompt_tokens and len(tokenizer.chat(list(said))) <= max_prompt_tokens:
            prompts[case.name] = said
    fitting = [case for case in asked if case.name in prompts]
    sample = stratified(fitting, limit, seed)
    tasks = [
        Task(case, prompts[case.name], back_end)
        for turn, case in enumerate(sample)
        for back_end in rotated(back_ends, turn)
    ]
    return Plan(tasks, len(sample), len(asked) - len(fitting))


def prepare_documents(settings: StructuredSettings, whitespace: str) -> Callable[[Task], Document]:
    """For a worker process: the model is loaded once.

    Raises:
        BadInput: if the model cannot be loaded.
    """
    # Its threads stay bound as long as the process lives.
    ready_threads(settings).__enter__()
    model = load_model(settings)
    return lambda task: write_document(model, task, whitespace, settings.max_new_tokens)


def write_document(model: Model, task: Task, whitespace: str, max_new_tokens: int) -> Document:
    """Let the model write, greedily and alone in its batch, and judge the result."""
    document = Document(name=task.case.name, source=task.case.source, back_end=task.back_end)
    clock = Clock()
    guides = []
    try:
        if task.back_end != LM_ONLY:
            started = perf_counter()
            made = chosen([task.back_end])[0].make(task.case.json_schema, whitespace)
            guides = [made.bind(model.tokenizer)]
            document.compile_seconds = perf_counter() - started
            document.checked_at_end = list(getattr(guides[0], "unmasked", ()))
        request = model.request(list(task.messages), guides=guides, max_new_tokens=max_new_tokens)
    except VentrisError as error:
        return document.model_copy(update={"status": "refused", "reason": str(error)})
    engine = model.engine(max_batch=1)
    completion = engine.add(request)
    try:
        for event in engine.run():
            clock.arrived(len(event.tokens))
    finally:
        engine.close()
    if completion.error is not None:
        return document.model_copy(update={"status": "error", "reason": completion.error})
    document.first_token_seconds = clock.first_seconds
    if clock.decode_tokens:
        document.token_seconds = clock.decode_seconds / clock.decode_tokens
    document.prompt_tokens = len(request.prompt)
    document.new_tokens = len(completion.tokens)
    document.finished = completion.finish_reason == "stop"
    document.said_valid = completion.valid
    document.text = completion.text
    _judge(document, task.case.json_schema)
    return document


def _judge(document: Document, schema: Any) -> None:
    found = _loaded(document.text)
    document.parses = found is not None
    if found is not None:
        verdict = judge(schema, found[0])
        document.reference, document.second, document.reason = (
            verdict.reference,
            verdict.second,
            verdict.reason,
        )
    elif (fenced := FENCE.match(document.text)) and (inner := _loaded(fenced.group(1))) is not None:
        document.unfenced = judge(schema, inner[0]).valid


def _loaded(text: str) -> tuple[Any] | None:
    """The value in a tuple, since JSON may say ``null``."""
    try:
        return (json.loads(text),)
    except (ValueError, RecursionError):
        return None
