"""Fill in the page's template, and write it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ventris.engine.request import Completion
from ventris.trace_page.data import page_data
from ventris.trace_page.text import ByteView, bytes_of, shares, to_html

SHARED_STYLES = ("base.css", "tokens.css", "step_tree.css")
SHARED_SCRIPTS = ("elements.js", "step_tree.js")
STYLES = (*SHARED_STYLES, "page.css")
SCRIPTS = (*SHARED_SCRIPTS, "page.js")


def write_trace_page(
    completion: Completion,
    tokenizer: ByteView | None,
    path: str | os.PathLike[str],
    title: str = "A decoding trace",
    prompt_text: str | None = None,
) -> Path:
    """Write the trace page of a completion; the file is there whole or not at all.

    Args:
        completion: Generated with ``trace=True``.
        tokenizer: The model's tokenizer; without one, tokens show as numbers.
        path: The HTML file; one that is there already is replaced.
        title: Heading of the page, such as the model's name.
        prompt_text: The prompt as a person wrote it; by default the prompt's tokens as text.

    Raises:
        BadInput: if the completion has no trace.
    """
    target = Path(path)
    page = render_trace_page(completion, tokenizer, title, prompt_text)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        draft.write_text(page, encoding="utf-8", newline="\n")
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def render_trace_page(
    completion: Completion,
    tokenizer: ByteView | None,
    title: str = "A decoding trace",
    prompt_text: str | None = None,
) -> str:
    """The trace page as one HTML document; see :func:`write_trace_page`."""
    data = page_data(completion, tokenizer)
    if prompt_text is None:
        prompt_text = "".join(shares([bytes_of(tokenizer, token) for token in completion.prompt]))
    script = "".join(map(asset, SCRIPTS))
    guarantee = data["guarantee"]
    return Template(asset("page.html")).substitute(
        title=escape(title),
        # Token text is untrusted. All of it is escaped; the policy stops any other script all the same.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        css="".join(map(asset, STYLES)),
        badge=_badge(guarantee["exact"], guarantee["statement"]) if guarantee else "",
        legend=_legend(data["sources"]),
        prompt=to_html(prompt_text),
        output=_output(completion.tokens, data, tokenizer),
        data=_embedded(data),
        script=script,
    )


def asset(name: str) -> str:
    """A file of this package, which other pages may share."""
    return files("ventris.trace_page").joinpath(name).read_text(encoding="utf-8")


def _badge(exact: bool, statement: str) -> str:
    kind = "exact" if exact else "approximate"
    rest = statement.removeprefix(f"{kind}: ")
    return f'<p class="badge {kind}"><b>{kind}</b> {escape(rest)}</p>'


def _legend(sources: Sequence[Mapping[str, Any]]) -> str:
    """Buttons, so that the script can make them switches; without it they are a plain legend."""
    return "".join(
        f'<button type="button" class="key h-{source["hue"]}" aria-pressed="true">'
        f'<i></i>{escape(source["label"])}<span class="count">{source["count"]}</span></button>'
        for source in sources
    )


def _output(tokens: Sequence[int], data: Mapping[str, Any], tokenizer: ByteView | None) -> str:
    """The output as one span a token; the script finds a token's step by its place."""
    texts = shares([bytes_of(tokenizer, token) for token in tokens])
    special: frozenset[int] = getattr(tokenizer, "special_ids", frozenset())
    spans: list[str] = []
    for step in data["steps"]:
        for place, visit in enumerate(step["visits"][: step["count"]]):
            token, text = tokens[len(spans)], texts[len(spans)]
            classes = ["t", f"h-{data['sources'][visit['source']]['hue']}"]
            classes += ["first"] * (place == 0) + ["special"] * (token in special) + ["rest"] * (not text)
            spans.append(f'<span class="{" ".join(classes)}">{to_html(text)}</span>')
    return "".join(spans)


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON for a script element: ASCII only, and nothing in it that HTML could read as markup."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
