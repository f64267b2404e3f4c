"""What all hard guides share: a grammar over bytes, walked token by token, that masks what cannot follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypedDict, get_args

from pydantic import BaseModel, Field, create_model

from ventris.engine.errors import BadInput, Incompatible
from ventris.engine.parts import RequestView
from ventris.engine.sampling import Sampling
from ventris.guide.back_ends.choice import LLGUIDANCE, OUTLINES, BackEndName, check_back_end
from ventris.guide.back_ends.ebnf import to_ebnf
from ventris.guide.back_ends.expression import to_expression
from ventris.guide.back_ends.language import Language
from ventris.guide.checked_state import CheckedState
from ventris.guide.closing import LONGEST, Deadline, find_ending
from ventris.guide.hard_state import HardState
from ventris.guide.limits import DEFAULT_LIMITS, Limits
from ventris.guide.matcher import Matcher
from ventris.guide.vocabulary import ByteTokenizer, Vocabulary, vocabulary_of

if TYPE_CHECKING:
    pass

Close = Literal["free", "in-time"]


class HardSettings(TypedDict, total=False):
    """Settings that all hard guides share; see :class:`HardGuide`."""

    forced: bool
    close: Close
    limits: Limits
    backend: BackEndName


def with_hard_options(own: type[BaseModel]) -> type[BaseModel]:
    """A guide's own options and, behind them, those of all hard guides."""
    forced = Field(True, description="draft text that must come next")
    close = Field("free", description="free, or in-time: end the text within max_new_tokens")
    return create_model(own.__name__, __base__=own, forced=(bool, forced), close=(Close, close))


def with_back_ends(own: type[BaseModel]) -> type[BaseModel]:
    """A guide's options, and the choice between back ends."""
    backend = Field(LLGUIDANCE, description="llguidance, xgrammar or outlines-core; see docs/guides.md")
    return create_model(own.__name__, __base__=own, backend=(BackEndName, backend))


class HardGuide(ABC):
    """A guide that allows exactly the texts of a language, and their beginnings.

    The distribution of each token is the target's own, masked and renormalised. The end of the text is
    allowed only where the language allows it.

    Args:
        forced: Hand text that must come next to the loop as a free draft. The output is the same either way.
        close: ``"in-time"`` refuses tokens behind which no ending is known that fits into
            ``max_new_tokens``, so that every text ends in time and is whole. Only the likeliest tokens of a
            place (:data:`CANDIDATES`) are looked at then.
        limits: Bounds for compiling and decoding.
        backend: What compiles the language and finds the masks. Those other than llguidance tell no forced
            text, and the limits of a step do not hold for them.

    Raises:
        BadInput: for an unknown way to close, and a back end that is not installed or not for this guide.
    """

    name: ClassVar[str]
    masks = True
    forkable = True
    back_ends: ClassVar[tuple[BackEndName, ...]] = (LLGUIDANCE,)

    def __init__(
        self,
        *,
        forced: bool = True,
        close: Close = "free",
        limits: Limits = DEFAULT_LIMITS,
        backend: BackEndName = LLGUIDANCE,
    ) -> None:
        if close not in get_args(Close):
            raise BadInput(f"close is {close!r}; it must be one of: {', '.join(get_args(Close))}")
        check_back_end(backend, self.back_ends, self.name)
        self.backend: BackEndName = backend
        self.forced = forced
        self.close: Close = close
        self.limits = limits
        self._opening: list[int] | None = None
        self._vocabulary: Vocabulary | None = None
        self._matcher: Matcher | None = None

    @abstractmethod
    def grammar(self) -> str:
        """The language, as llguidance reads it.

        Raises:
            BadInput: if what the guide was made from says no language.
        """

    def language(self) -> Language:
        """The language, for back ends other than llguidance.

        Raises:
            BadInput: naming what they cannot keep; a guide that names such a back end among its own has to
                say its language here.
        """
        raise BadInput(
            f"the guide {self.name!r} does not say its language for the back end {self.backend!r}; "
            f"use {LLGUIDANCE!r}"
        )

    def source(self) -> str:
        """The language as the back end reads it.

        Raises:
            BadInput: as :meth:`grammar` and :meth:`language`.
        """
        if self.backend == LLGUIDANCE:
            return self.grammar()
        language = self.language()
        if self.backend == OUTLINES:
            # Without the mark of the end the first alternative that matches would win: "a" of "a|ab".
            return f"(?:{to_expression(language, self.limits.text_bytes)})\\z"
        return to_ebnf(language)

    def bind(self, tokenizer: ByteTokenizer | None) -> Self:
        """The guide for one tokenizer, compiled; models do this with the guides that they are given.

        Raises:
            BadInput: if there is no tokenizer, or the grammar cannot be compiled within the limits.
        """
        if tokenizer is None:
            raise BadInput(f"guide {self.name!r} masks by text, and this model has no tokenizer")
        vocabulary = vocabulary_of(tokenizer)
        if self._vocabulary is vocabulary:
            return self
        bound = copy(self)
        bound._vocabulary = vocabulary
        bound._matcher = bound.compile(vocabulary)
        if self.close == "in-time":
            bound._opening = bound._find_opening(bound._matcher, vocabulary)
        return bound

    def _find_opening(self, matcher: Matcher, vocabulary: Vocabulary) -> list[int] | None:
        """The first ending to keep to; ``None`` if none is found that also passes the checks."""
        if not self.refuses_broken_ends:
            return find_ending(matcher, vocabulary, LONGEST)
        view = vocabulary.token_bytes

        def keeps(tokens: Sequence[int]) -> bool:
            return self.satisfied_meanwhile([b"".join(view[token] for token in tokens)])[0]

        return find_ending(matcher, vocabulary, LONGEST, keeps)

    def compile(self, vocabulary: Vocabulary) -> Matcher:
        """The matcher for a vocabulary.

        Raises:
            GrammarRefused: if the back end does not take the grammar.
            BadInput: if it cannot be compiled within the limits.
        """
        try:
            return vocabulary.matcher(self.source(), self.limits, self.backend)
        except BadInput as error:
            by = "" if self.backend == LLGUIDANCE else f" (backend {self.backend})"
            raise type(error)(f"guide {self.name!r}{by}: {error}") from None
        except RecursionError:  # parts that name parts, deeper than any text that was checked
            raise BadInput(f"guide {self.name!r}: it nests too deeply; make it flatter") from None
        except ValueError as error:  # lone surrogates, or a number that the back end cannot hold
            raise BadInput(f"guide {self.name!r}: {str(error).splitlines()[0]}") from None

    def satisfied(self, text: bytes) -> bool:
        """Whether a complete text also keeps the rules that the grammar cannot express."""
        return True

    @property
    def unmasked(self) -> Sequence[str]:
        """Names of the rules that :meth:`satisfied` checks."""
        return ()

    @property
    def refuses_broken_ends(self) -> bool:
        """Whether a text is kept from ending while :meth:`satisfied` does not hold."""
        return self.checks_text

    def satisfied_meanwhile(self, texts: Sequence[bytes]) -> list[bool]:
        """As :meth:`satisfied`, of texts that have not ended; all true where that takes too long to say."""
        return [True] * len(texts)

    def last_bytes(self, text: bytes) -> bytes:
        """The bytes that a text which begins as ``text`` does may end with, but for blanks."""
        return bytes(range(256))

    @property
    def checks_text(self) -> bool:
        """True if :meth:`satisfied` has anything to check."""
        return False

    def start(self, request: RequestView) -> HardState:
        """State for a new request.

        Raises:
            BadInput: if the guide was not bound to a tokenizer, or is to close in time and cannot.
        """
        if self._vocabulary is None or self._matcher is None:
            raise BadInput(f"guide {self.name!r} has no tokenizer yet; call bind(tokenizer)")
        kind = CheckedState if self.refuses_broken_ends else HardState
        state = kind(self, self._vocabulary, self._matcher.deep_copy(), request.end_ids)
        if self.close == "in-time":
            state.deadline = self._deadline(self._vocabulary, request.remaining)
        return state

    def check_with(self, parts: Sequence[object], sampling: Sampling) -> None:
        """Refuse what could forbid the only way to end in time."""
        if self.close != "in-time":
            return
        for part in parts:
            if getattr(part, "masks", False):
                other, reason = f"guide {getattr(part, 'name', part)!r}", "say both in one grammar"
                raise Incompatible(f"guide {self.name!r}", other, f"it closes in time on its own; {reason}")
        if sampling.banned or sampling.forced or sampling.min_new_tokens:
            raise Incompatible(
                f"guide {self.name!r}",
                "banned_words, forced_words and min_new_tokens",
                "they may forbid the only way to end in time; set close to 'free'",
            )

    def _deadline(self, vocabulary: Vocabulary, tokens: int) -> Deadline:
        if self._opening is None:
            rules = " that also keeps the rules without a mask" if self.refuses_broken_ends else ""
            raise BadInput(
                f"guide {self.name!r} cannot close in time: no text of {LONGEST} tokens or less was "
                f"found{rules}; set close to 'free'"
            )
        if len(self._opening) >= tokens:
            raise BadInput(
                f"guide {self.name!r} cannot close in time: the shortest text that was found needs "
                f"{len(self._opening) + 1} tokens and max_new_tokens is {tokens}; raise it"
            )
        return Deadline(vocabulary, self._opening, tokens)
