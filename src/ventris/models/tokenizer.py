"""Text to token ids and back, the byte view of a vocabulary, and streaming output."""

from __future__ import annotations

import codecs
import hashlib
import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import tokenizers

from ventris.engine.errors import BadInput
from ventris.models.chat import Message, render_chat


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What belongs to a tokenizer but is not in ``tokenizer.json``.

    Attributes:
        bos_id: Token that begins a text; ``None`` where the model has none.
        eos_ids: Tokens that end an answer.
        add_bos: Whether a whole prompt begins with ``bos_id``.
        chat_templates: Jinja templates by name; ``default``, and ``tool_use`` where there is one for tools.
        named_tokens: Special tokens that templates refer to by name, such as ``bos_token``.
    """

    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    add_bos: bool = False
    chat_templates: dict[str, str] = field(default_factory=dict)
    named_tokens: dict[str, str] = field(default_factory=dict)


class Tokenizer:
    """The tokenizer of one model.

    Args:
        backend: The ``tokenizers`` object that splits and merges.
        facts: Special ids and chat templates.

    Attributes:
        vocab_size: Number of ids, special ones included: every id lies below it. A model may have more
            rows (padding) than its tokenizer has ids.
        bos_id: Token that begins a text, or ``None``.
        eos_ids: Tokens that end an answer.
        special_ids: Ids that stand for no text.

    Raises:
        BadInput: if the tokenizer is neither byte-level BPE nor of SentencePiece's kind.
    """

    def __init__(self, backend: tokenizers.Tokenizer, facts: TokenizerFacts) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.facts = facts
        self.bos_id = facts.bos_id
        self.eos_ids = facts.eos_ids
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(number for number, token in added.items() if token.special)
        self._added = {number: token.content for number, token in added.items()}
        self._spelling = _Spelling.of(backend)
        self._lock = threading.Lock()
        self._limit: int | None = None
        top = max((*self._added, *facts.eos_ids, facts.bos_id or 0), default=0)
        self.vocab_size = max(backend.get_vocab_size(with_added_tokens=True), top + 1)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            special: The text is a whole prompt: control tokens written in it count as such, and the
                beginning-of-text token is put before it if the model wants one and it is not there yet.
                Otherwise the text is plain words, whoever wrote it, and nothing is added.

        Raises:
            BadInput: if the text holds lone surrogates, which no encoding can express.
        """
        ids = self._split(text, special)
        if special and self.facts.add_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def _split(self, text: str, special: bool) -> list[int]:
        try:
            # The switch belongs to the backend as a whole, so two threads must not turn it at once.
            with self._lock:
                self.backend.encode_special_tokens = not special
                ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):
            raise BadInput("the text has lone surrogates, so it is no Unicode; decode it as UTF-8") from None
        if self._limit is not None and max(ids, default=0) >= self._limit:
            token = self.backend.id_to_token(max(ids))
            raise BadInput(f"the text holds {token!r}, for which the model has no embedding; take it out")
        return ids

    def limit_ids(self, vocab_size: int) -> None:
        """Make sure that every id fits a model with ``vocab_size`` embeddings.

        Special tokens past the end are left out of account (Gemma 3's text models have one, for images) and
        refused when a text uses them.

        Raises:
            BadInput: if any other token lies past the end: the tokenizer belongs to another model.
        """
        if self.vocab_size <= vocab_size:
            return
        ids = self.backend.get_vocab(with_added_tokens=True).values()
        words = {number for number in ids if number >= vocab_size} - self.special_ids
        used = {*self.eos_ids, self.bos_id or 0}
        if words or max(used) >= vocab_size:
            raise BadInput(
                f"the tokenizer has {self.vocab_size:,} ids, but the model knows only {vocab_size:,}; "
                "use the tokenizer that belongs to the model"
            )
        self._limit = vocab_size

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of ``ids``; bytes that are no UTF-8 become U+FFFD.

        Args:
            special: Write special tokens out instead of leaving them away.
        """
        stream = TextStream(self, special=special)
        return stream.push(*ids) + stream.finish()

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token adds to a text; for a special token its name in UTF-8.

        Empty for ids that the vocabulary does not use.
        """
        return self.vocabulary_bytes[token] if 0 <= token < self.vocab_size else b""

    @cached_property
    def vocabulary_bytes(self) -> list[bytes]:
        """:meth:`token_bytes` of every id, ``[vocab_size]``."""
        spelled = self._spelling.bytes_of
        view = [b""] * self.vocab_size
        for token, number in self.backend.get_vocab(with_added_tokens=True).items():
            view[number] = token.encode() if number in self._added else spelled(token)
        return view

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the vocabulary: equal for tokenizers whose ids mean the same bytes."""
        digest = hashlib.sha256()
        for number, spelling in enumerate(self.vocabulary_bytes):
            digest.update(b"%d,%d:" % (number in self.special_ids, len(spelling)) + spelling)
        return digest.hexdigest()[:32]

    @property
    def has_chat_template(self) -> bool:
        return bool(self.facts.chat_templates)

    def chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Any] | None = None,
        **variables: Any,
    ) -> list[int]:
        """Token ids of a conversation; see :meth:`chat_text`.

        The template alone decides on special tokens, as in transformers: no beginning-of-text token is
        added to what it writes.

        Raises:
            BadInput: as :meth:`chat_text`.
        """
        return self._split(self.chat_text(messages, add_generation_prompt, tools, **variables), special=True)

    def chat_text(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Any] | None = None,
        **variables: Any,
    ) -> str:
        """A conversation as the model's chat template writes it.

        Args:
            add_generation_prompt: End with the words that open the assistant's turn.
            tools: JSON schemas of functions that the model may call.
            variables: Further names for the template, such as ``enable_thinking``.

        Raises:
            BadInput: if the model has no template, or the template refuses the messages.
        """
        templates = self.facts.chat_templates
        template = templates.get("tool_use") if tools else None
        template = template or templates.get("default")
        if template is None:
            raise BadInput("this model has no chat template; give a plain prompt instead of messages")
        given = {
            **self.facts.named_tokens,
            "add_generation_prompt": add_generation_prompt,
            "tools": list(tools) if tools else None,
            "documents": None,
            **variables,
        }
        return render_chat(template, messages, given)


class TextStream:
    """Turns ids into text while they arrive, in time proportional to the new ids.

    Bytes of a character that is not complete yet are held back; the pieces together are exactly what
    :meth:`Tokenizer.decode` gives for all ids.

    Args:
        tokenizer: The tokenizer of the ids.
        special: Write special tokens out instead of leaving them away.
    """

    def __init__(self, tokenizer: Tokenizer, *, special: bool = False) -> None:
        self._view = tokenizer.vocabulary_bytes
        self._hidden: frozenset[int] = frozenset() if special else tokenizer.special_ids
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # SentencePiece begins every text with a space that the writer did not type.
        self._drop_space = tokenizer._spelling.leading_space

    def push(self, *ids: int) -> str:
        """The text that can be printed now that ``ids`` have arrived."""
        view, hidden = self._view, self._hidden
        data = b"".join([view[token] for token in ids if token < len(view) and token not in hidden])
        if self._drop_space and data:
            self._drop_space = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What was held back; an incomplete character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)


@dataclass(frozen=True, slots=True)
class _Spelling:
    """How a vocabulary writes bytes.

    Attributes:
        byte_level: One printable character for each byte (GPT-2); otherwise SentencePiece's way, with
            ``▁`` for a space and ``<0x0A>`` for a byte.
        leading_space: Decoding takes one space from the beginning of a text.
    """

    byte_level: bool
    leading_space: bool

    @staticmethod
    def of(backend: tokenizers.Tokenizer) -> _Spelling:
        """Read off the decoder, which says it in every ``tokenizer.json``."""
        steps = []
        for part in (backend.decoder, backend.pre_tokenizer):
            state = json.loads(part.__getstate__()) if part is not None else {}
            steps.append(state.get("decoders") or state.get("pretokenizers") or [state])
        decoders = {step.get("type"): step for step in steps[0]}
        if "ByteLevel" in decoders or any(step.get("type") == "ByteLevel" for step in steps[1]):
            return _Spelling(byte_level=True, leading_space=False)
        if "Metaspace" in decoders:
            return _Spelling(False, decoders["Metaspace"].get("prepend_scheme") != "never")
        if "ByteFallback" in decoders or "Replace" in decoders:
            strip = decoders.get("Strip", {})
            return _Spelling(False, strip.get("content") == " " and strip.get("start", 0) > 0)
        raise BadInput(
            "this tokenizer is neither byte-level BPE nor SentencePiece, and no other kind is supported; "
            "use another model"
        )

    def bytes_of(self, token: str) -> bytes:
        """The bytes behind one entry of the vocabulary."""
        if self.byte_level:
            try:
                return bytes(map(_BYTE_OF.__getitem__, token))
            except KeyError:
                return token.encode()
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                return token.encode()
        return token.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for every byte: itself if printable, else the next from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
