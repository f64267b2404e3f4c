"""The byte view of a tokenizer that llguidance works on, made once a vocabulary."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from ventris.engine.errors import BadInput
from ventris.guide.back_ends.choice import LLGUIDANCE, read_matcher
from ventris.guide.back_ends.llguidance_matcher import Automaton, LLGuidanceMatcher
from ventris.guide.compile import CompileWorker, gist
from ventris.guide.likely import Likely
from ventris.guide.limits import Limits
from ventris.guide.matcher import Matcher

KEPT_VOCABULARIES = 4
KEPT_GRAMMARS = 64
KEPT_SPLITS = 4096
LONGEST_KEPT_SPLIT = 200
"""Forced texts, such as a schema's keys, come again and again; a split takes a tenth of a millisecond."""


class ByteTokenizer(Protocol):
    """What guides ask of a tokenizer; :class:`ventris.models.tokenizer.Tokenizer` has it."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def eos_ids(self) -> Sequence[int]: ...

    @property
    def special_ids(self) -> Collection[int]: ...

    @property
    def vocabulary_bytes(self) -> list[bytes]: ...

    @property
    def fingerprint(self) -> str: ...

    def encode(self, text: str) -> list[int]: ...


class Vocabulary:
    """A tokenizer as llguidance sees it, with the grammars compiled for it.

    Args:
        tokenizer: The tokenizer; it splits forced text, so that the tokens are those it would choose.

    Raises:
        BadInput: if the tokenizer has no end token.
    """

    def __init__(self, tokenizer: ByteTokenizer) -> None:
        if not tokenizer.eos_ids:
            raise BadInput("this tokenizer names no end token, and a guided text must be able to end")
        self.size = tokenizer.vocab_size
        self.end_ids = frozenset(tokenizer.eos_ids)
        self.end = tokenizer.eos_ids[0]
        self.token_bytes = tokenizer.vocabulary_bytes
        special = sorted({*tokenizer.special_ids, *self.end_ids})
        self.worker = CompileWorker(self.token_bytes, special, self.end)
        self.worker.start()
        # Checks that a step waits for must not stand behind somebody's grammar.
        self.checker = CompileWorker([], [], 0)
        wrapped: Any = _Wrapped(tokenizer, special)
        self.backend = LLTokenizer(wrapped, eos_token=list(tokenizer.eos_ids))
        self.split = wrapped
        self.special = frozenset(special)
        self._grammars: OrderedDict[tuple[str, str, Limits], Matcher] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def likely(self) -> Likely:
        """Tokens to look for an ending with."""
        return Likely.of(self.token_bytes, self.special)

    @cached_property
    def last_bytes(self) -> NDArray[np.uint8]:
        """The last byte of each token but for blanks behind it, ``[size]``; 0 where nothing else is in it."""
        return np.array([(b"\0" + token.rstrip())[-1] for token in self.token_bytes], dtype=np.uint8)

    def matcher(self, grammar: str, limits: Limits, back_end: str = LLGUIDANCE) -> Matcher:
        """A matcher at the beginning of the text, to be copied for each request.

        Args:
            grammar: As the back end reads it.

        Raises:
            BadInput: if the grammar cannot be compiled within the limits.
        """
        key = (back_end, grammar, limits)
        with self._lock:
            if key not in self._grammars:
                self._grammars[key] = self._compiled(grammar, limits, back_end)
                if len(self._grammars) > KEPT_GRAMMARS:
                    self._grammars.popitem(last=False)
            self._grammars.move_to_end(key)
            return self._grammars[key].deep_copy()

    def _compiled(self, grammar: str, limits: Limits, back_end: str) -> Matcher:
        if back_end != LLGUIDANCE:
            built = self.worker.build(back_end, grammar, limits)
            return read_matcher(back_end, built, self.token_bytes, self.special, self.end_ids, self.end)
        self.worker.check(grammar, limits)

        def make() -> LLMatcher:
            made = LLMatcher(self.backend, grammar, log_level=0, limits=limits.parser_limits())
            if made.is_error():
                raise BadInput(gist(made.get_error()))
            return made

        return LLGuidanceMatcher(Automaton(make))


class _Wrapped:
    """A tokenizer with the attributes that llguidance reads."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: ByteTokenizer, special: list[int]) -> None:
        self.eos_token_id = tokenizer.eos_ids[0]
        self.bos_token_id = None
        self.tokens = tokenizer.vocabulary_bytes
        self.special_token_ids = special
        self._tokenizer = tokenizer
        # SentencePiece puts a space before every text; behind a first piece it does not.
        plain = b"".join(self.tokens[token] for token in tokenizer.encode("a")) == b"a"
        self._first = "" if plain else "\n"
        self._skip = len(tokenizer.encode(self._first)) if self._first else 0
        self._known = lru_cache(KEPT_SPLITS)(self._split)

    def __call__(self, text: str | bytes) -> list[int]:
        if isinstance(text, bytes):
            text = text.decode()
        return list(self._known(text) if len(text) <= LONGEST_KEPT_SPLIT else self._split(text))

    def _split(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(self._first + text)[self._skip :])


_known: OrderedDict[str, Vocabulary] = OrderedDict()
_known_lock = threading.Lock()


def vocabulary_of(tokenizer: ByteTokenizer) -> Vocabulary:
    """The vocabulary of a tokenizer, made on first use (a quarter of a second) and then kept.

    Raises:
        BadInput: if the tokenizer has no end token.
    """
    key = f"{tokenizer.fingerprint} {sorted(tokenizer.eos_ids)}"
    with _known_lock:
        if key not in _known:
            _known[key] = Vocabulary(tokenizer)
            if len(_known) > KEPT_VOCABULARIES:
                _, dropped = _known.popitem(last=False)
                dropped.worker.close()
                dropped.checker.close()
        _known.move_to_end(key)
        return _known[key]
