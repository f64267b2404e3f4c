"""Chat templates behave as in transformers, and cannot do harm."""

from __future__ import annotations

import pytest
import tokenizers
from tiny_models import TEMPLATE, tokenizer_json

from ventris.engine.errors import BadInput
from ventris.models.chat import render_chat
from ventris.models.tokenizer import Tokenizer, TokenizerFacts

USER = [{"role": "user", "content": "Hi"}]


def with_templates(**templates: str) -> Tokenizer:
    facts = TokenizerFacts(chat_templates=templates, named_tokens={"eos_token": "<|im_end|>"})
    return Tokenizer(tokenizers.Tokenizer.from_str(tokenizer_json()), facts)


def test_a_conversation() -> None:
    tokenizer = with_templates(default=TEMPLATE)
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.chat_text(USER) == text
    assert tokenizer.chat(USER) == tokenizer.encode(text, special=True)
    assert not tokenizer.chat_text(USER, add_generation_prompt=False).endswith("assistant\n")


def test_equal_to_transformers() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    template = (
        "{%- for message in messages %}\n    {%- if loop.index > 9 %}{% break %}{% endif %}\n"
        "  {% if tools %}\n{{ tools | tojson(indent=2) }}\n  {% endif %}\n"
        "{{ message['content'] | tojson }} {{ message.role }}\n"
        "{% generation %}x{% endgeneration %}{%- endfor %}"
    )
    tools = [{"type": "function", "function": {"name": "f<é>", "parameters": {}}}]
    messages = [{"role": "user", "content": "<b> 'é'"}, {"role": "assistant", "content": "ok"}]
    expected, _ = render_jinja_template([messages], tools=tools, chat_template=template)
    assert render_chat(template, messages, {"tools": tools}) == expected[0]


def test_tools_choose_their_template() -> None:
    tokenizer = with_templates(default="plain", tool_use="{{ tools[0].name }}")
    assert tokenizer.chat_text(USER) == "plain"
    assert tokenizer.chat_text(USER, tools=[{"name": "search"}]) == "search"


def test_variables_reach_the_template() -> None:
    tokenizer = with_templates(default="{{ thinking }}{{ eos_token }}{{ strftime_now('%Y') | length }}")
    assert tokenizer.chat_text(USER, thinking=False) == "False<|im_end|>4"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for %}", "chat template"),
        ("{{ messages[0].content + 3 }}", "chat template"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "chat template"),
        ("{{ messages.append(1) }}", "chat template"),
        ("{% for i in range(10**9) %}{% endfor %}", "chat template"),
    ],
)
def test_refusals_and_attacks_end_in_one_line(template: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        with_templates(default=template).chat_text(USER)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("messages", [["hello"], [{"content": "x"}], [{"role": 3, "content": "x"}]])
def test_messages_need_roles(messages: list[object]) -> None:
    with pytest.raises(BadInput, match="role"):
        with_templates(default=TEMPLATE).chat_text(messages)  # type: ignore[arg-type]


def test_no_template() -> None:
    with pytest.raises(BadInput, match="no chat template"):
        with_templates().chat(USER)
