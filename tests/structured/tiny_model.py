"""A model over the tiny vocabulary with a chat template, so that whole protocols run in a second."""

from __future__ import annotations

from ventris.model import Model
from ventris.models.tokenizer import Tokenizer, TokenizerFacts

from ..guide.tiny import TinyTarget, tiny_tokenizer

TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


def tiny_chat_model() -> Model:
    facts = TokenizerFacts(bos_id=1, eos_ids=(2, 0), chat_templates={"default": TEMPLATE})
    return Model(TinyTarget(context_length=4096), Tokenizer(tiny_tokenizer().backend, facts))
