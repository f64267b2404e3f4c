"""Chat templates: messages to the text that a model was trained on, by the rules of transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from ventris.engine.errors import BadInput

Message = Mapping[str, Any]


def render_chat(template: str, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
    """The text of a conversation.

    Args:
        template: A Jinja template as ``tokenizer_config.json`` holds it. It runs in a sandbox.
        messages: Each with a ``role`` and a ``content``.
        variables: Further names that the template sees.

    Raises:
        BadInput: if a message has no role, or the template refuses the messages or is broken.
    """
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise BadInput(f"the chat message {message!r} has no role; give a mapping with role and content")
    try:
        return _compiled(template).render(messages=list(messages), **variables)
    except jinja2.TemplateError as error:
        raise BadInput(f"the model's chat template refuses these messages: {error}") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise BadInput(f"the model's chat template cannot take these messages: {error}") from None


class _Generation(jinja2.ext.Extension):
    """``{% generation %}``, by which templates mark the assistant's words for training: any other text."""

    tags = {"generation"}  # noqa: RUF012  # a class attribute by jinja2's contract

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=16)
def _compiled(template: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment.from_string(template)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    # Jinja's own filter escapes for HTML, which no model was trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
