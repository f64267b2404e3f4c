"""``ventris generate``: one prompt, one answer."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ventris.cli.answer import show_answer, show_stats, stderr_is_terminal
from ventris.cli.answer_json import answer_object, print_json
from ventris.cli.loading import load_for
from ventris.cli.progress import phases
from ventris.cli.settings import Asked, takes_settings
from ventris.cli.streams import read_stdin
from ventris.engine.errors import BadInput

if TYPE_CHECKING:
    from ventris.engine.request import Completion
    from ventris.model import Model


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("generate")(takes_settings(generate))


def generate(
    asked: Asked,
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="the prompt; - or nothing reads stdin")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", metavar="FILE.html", help="write a page that shows every step")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON object instead of the text")
    ] = False,
    stats: Annotated[
        bool | None, typer.Option(help="a line of statistics on stderr; by default on a terminal")
    ] = None,
) -> None:
    """Answer a prompt. This command's name may be left out: ventris "Explain hash tables."

    Parts are written name:option=value,option=value, as in --draft ngram:max_nodes=8;
    ventris parts lists them all.
    """
    if asked.options.logprobs is not None and not as_json:
        raise BadInput("log-probabilities are part of the JSON answer only; add --json")
    if trace is not None and not trace.parent.is_dir():
        raise BadInput(f"cannot write {trace}: there is no folder {trace.parent}")
    if trace is not None and trace.is_dir():
        raise BadInput(f"cannot write {trace}: it is a folder; name a file, as {trace / 'trace.html'}")
    messages = _conversation(_read_prompt(prompt, asked.options.raw), asked)
    model = load_for(asked)
    with phases("preparing the parts"):
        pieces = model.stream(messages, **asked.settings, **({"trace": True} if trace else {}))
    completion = show_answer(pieces, silent=as_json)
    if trace is not None:
        _write_trace(completion, model, trace, title=asked.model.model)
    if as_json:
        answer = answer_object(completion, asked.model.model, model.tokenizer)
        if asked.options.tools is not None:
            answer["tool_calls"] = [asdict(call) for call in model.read_calls(completion.text).calls]
        print_json(answer, indent=None)
    if stats if stats is not None else stderr_is_terminal() and not as_json:
        show_stats(completion)


def _read_prompt(prompt: str | None, raw: bool) -> str:
    if prompt is None and sys.stdin.isatty():
        raise BadInput('there is no prompt; write ventris "Explain hash tables.", or - to type it on stdin')
    if prompt in (None, "-"):
        prompt = read_stdin()
        # A shell ends its output with a line break that nobody meant; a raw prompt is taken as it is.
        prompt = prompt if raw else prompt.rstrip("\n")
    assert prompt is not None
    if not prompt.strip() and not raw:
        raise BadInput("the prompt is empty")
    return prompt


def _conversation(prompt: str, asked: Asked) -> Any:
    if asked.system is None:
        return prompt
    if asked.options.raw:
        raise BadInput("a raw prompt has no system message; leave out --system or --raw")
    return [{"role": "system", "content": asked.system}, {"role": "user", "content": prompt}]


def _write_trace(completion: Completion, model: Model, path: Path, title: str) -> None:
    from ventris.trace_page import write_trace_page

    try:
        write_trace_page(completion, model.tokenizer, path, title)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from None
