"""What all hard guides share: a grammar over bytes, walked token by token, that masks what cannot follow."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypedDict, get_args

import numpy as np
from pydantic import BaseModel, Field, create_model
from torch import Tensor

from ventris.engine.errors import BadInput, Incompatible
from ventris.engine.parts import NodeView, RequestView
from ventris.engine.sampling import Row, Sampling, greedy_token
from ventris.engine.tree import TokenTree
from ventris.guide.back_ends.choice import LLGUIDANCE, OUTLINES, BackEndName, check_back_end
from ventris.guide.back_ends.ebnf import to_ebnf
from ventris.guide.back_ends.expression import to_expression
from ventris.guide.back_ends.language import Language
from ventris.guide.closing import LONGEST, Deadline, find_ending
from ventris.guide.compile import gist
from ventris.guide.limits import DEFAULT_LIMITS, GuideStopped, Limits
from ventris.guide.matcher import Matcher
from ventris.guide.vocabulary import ByteTokenizer, Vocabulary, vocabulary_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


SPARSE = 8
"""Looking at the allowed tokens alone pays if at most one in so many is."""


CANDIDATES = 64
"""Tokens at a place, the likeliest ones, that may follow if the text can still end in time behind them."""

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
            bound._opening = find_ending(bound._matcher, vocabulary, LONGEST)
        return bound

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
        state = HardState(self, self._vocabulary, self._matcher.deep_copy(), request.end_ids)
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
            raise BadInput(
                f"guide {self.name!r} cannot close in time: no text of {LONGEST} tokens or less was found; "
                "set close to 'free'"
            )
        if len(self._opening) >= tokens:
            raise BadInput(
                f"guide {self.name!r} cannot close in time: the shortest text that was found needs "
                f"{len(self._opening) + 1} tokens and max_new_tokens is {tokens}; raise it"
            )
        return Deadline(vocabulary, self._opening, tokens)


class _Buffer:
    """Room for a packed mask; asking numpy for its address once saves a tenth of a mask's time."""

    def __init__(self, size: int) -> None:
        self.packed = np.empty((size + 31) // 32, dtype=np.uint32)
        self.address = self.packed.ctypes.data


class HardState:
    """A place in a text of the language.

    Args:
        end_ids: Tokens that end the request. Without any, the tokenizer's own may follow a complete text.
    """

    def __init__(
        self, guide: HardGuide, vocabulary: Vocabulary, matcher: Matcher, end_ids: frozenset[int]
    ) -> None:
        self.tokens: list[int] = []
        self.ended = False
        self.broken = False
        self._guide = guide
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._ends = end_ids or vocabulary.end_ids
        self._buffer = _Buffer(vocabulary.size)
        self.deadline: Deadline | None = None

    def adjust(self, logits: Tensor, view: NodeView) -> Tensor:
        """Mask ``logits`` ``[vocab]`` in place.

        Raises:
            GuideStopped: if finding the mask passes a limit.
        """
        if not self.broken:
            row = logits.numpy()
            forbidden = self._forbidden(len(row))
            if self.deadline is not None and not self.ended:
                self._forbid_late(row, forbidden, self.deadline)
            np.copyto(row, -np.inf, where=forbidden)
        return logits

    def _forbid_late(self, row: Row, forbidden: NDArray[np.bool_], deadline: Deadline) -> None:
        """Leave of the allowed tokens those likeliest ones behind which the text can still end in time."""
        left = [token for token in self._ends if token < len(row) and not forbidden[token]]
        allowed = np.flatnonzero(~forbidden)
        best = allowed[np.argsort(-row[allowed], kind="stable")][: CANDIDATES + len(left)]
        left += [t for t in best.tolist() if t not in left and deadline.after(self._matcher, t) is not None]
        forbidden[:] = True
        # The ending that is kept is always a way on, also where another split of forced text is the rule.
        forbidden[left or deadline.ending[:1]] = False

    def _forbidden(self, width: int) -> NDArray[np.bool_]:
        """Which of the model's ``width`` tokens may not follow."""
        size = self._vocabulary.size
        if self.ended:
            forbidden = np.ones(width, dtype=np.bool_)
        else:
            packed = self._buffer.packed
            self._matcher.unsafe_compute_mask_ptr(self._buffer.address, packed.nbytes)
            if self._matcher.is_error():
                raise self._stopped()
            bits = np.unpackbits(np.invert(packed).view(np.uint8), count=min(width, size), bitorder="little")
            forbidden = bits.view(np.bool_)
            if width > size:
                forbidden = np.pad(forbidden, (0, width - size), constant_values=True)
        # llguidance allows the tokenizer's end tokens; the request may have others.
        for token in self._vocabulary.end_ids:
            if token < width:
                forbidden[token] = True
        may_not_end = not (self.ended or self._matcher.is_accepting())
        for token in self._ends:
            if token < width:
                forbidden[token] = may_not_end
        return forbidden

    def _stopped(self) -> GuideStopped:
        error = self._matcher.get_error()
        place = f"guide {self._guide.name!r} stopped after {len(self.tokens)} tokens: "
        if "NoExtension" in error:
            return GuideStopped(f"{place}no token of this vocabulary goes on with the text")
        return GuideStopped(f"{place}{gist(error)}; simplify it or raise its limits")

    def best(self, row: Row) -> int | None:
        """The largest logit that :meth:`adjust` leaves; mostly the largest of all, so no mask is needed.

        Args:
            row: Logits ``[vocab]``, not changed.

        Raises:
            BrokenModel: if the logits are NaN.
            GuideStopped: as :meth:`adjust`.
        """
        if self.deadline is not None and not (self.broken or self.ended):
            token = greedy_token(row)
            # Where anything stands against the best token, the whole row has to be looked at.
            if self._matcher.compute_ff_tokens() or not self._leaves(token):
                return None
            fits = token in self._ends or self.deadline.after(self._matcher, token) is not None
            return token if fits else None
        if not (self.broken or self.ended):
            forced = self._matcher.compute_ff_tokens()
            if forced:
                ends = forced[0] in self._ends or forced[0] in self._vocabulary.end_ids
                return forced[0] if not ends and math.isfinite(row[forced[0]]) else None
        token = greedy_token(row)
        if self._leaves(token):
            return token
        allowed = np.flatnonzero(~self._forbidden(len(row)))
        if allowed.size * SPARSE > len(row):
            return None
        token = int(allowed[row[allowed].argmax()]) if allowed.size else -1
        return token if token >= 0 and math.isfinite(row[token]) else None

    def _leaves(self, token: int) -> bool:
        """Whether a token may follow where nothing is forced."""
        if self.broken:
            return True
        if token in self._ends:
            return self.ended or self._matcher.is_accepting()
        if self.ended or token >= self._vocabulary.size or token in self._vocabulary.end_ids:
            return False
        return bool(self._matcher.validate_tokens([token]) == 1)

    def advance(self, token: int) -> None:
        """Follow a token; one that the language forbids leaves the state broken, and nothing masked."""
        if self.broken:
            return
        if self.ended or token in self._ends:
            self.broken = not (token in self._ends and (self.ended or self._matcher.is_accepting()))
            self.ended = True
            return
        self.tokens.append(token)
        if self.deadline is not None and token < self._vocabulary.size:
            self.deadline = self.deadline.advance(self._matcher, token)
        # A refused token would put the matcher into its error state for good.
        if token >= self._vocabulary.size or self._matcher.try_consume_tokens([token]) != 1:
            self.broken = True

    def fork(self) -> HardState:
        """An independent copy."""
        twin = copy(self)
        twin.tokens = list(self.tokens)
        twin._matcher = self._matcher.deep_copy()
        twin._buffer = _Buffer(self._vocabulary.size)
        # A deadline is never changed, only replaced.
        return twin

    def forced(self) -> list[int]:
        """Tokens of the text that must come next, as the tokenizer would split it; often none."""
        if not self._guide.forced or self.ended or self.broken:
            return []
        tokens = self._matcher.compute_ff_tokens()
        if self.deadline is not None and tokens != self.deadline.ending[: len(tokens)]:
            # Another split of the forced text may be all that there is time for.
            return []
        end = next((place for place, token in enumerate(tokens) if token in self._ends), len(tokens))
        return tokens[:end]

    def prune(self, tree: TokenTree) -> list[int]:
        """The nodes of a draft that the language allows."""
        if self.ended or self.broken:
            return [*range(len(tree))] if self.broken else [0]
        allowed = {0}
        parents = set(tree.parents)
        for leaf in (node for node in range(1, len(tree)) if node not in parents):
            allowed |= self._allowed_on(tree, tree.path_to(leaf)[1:])
        return sorted(allowed)

    def _allowed_on(self, tree: TokenTree, path: list[int]) -> set[int]:
        """The allowed beginning of one drafted path; nothing may follow an end token."""
        tokens = [tree.tokens[node] for node in path]
        size = self._vocabulary.size
        stop = next((i for i, t in enumerate(tokens) if t in self._ends or t >= size), len(tokens))
        count = self._matcher.validate_tokens(tokens[:stop]) if stop else 0
        kept = set(path[:count])
        if count == stop < len(tokens) and tokens[stop] in self._ends:
            probe = self._matcher.deep_copy()
            if probe.try_consume_tokens(tokens[:stop]) == stop and probe.is_accepting():
                kept.add(path[stop])
        return kept

    @property
    def valid(self) -> bool:
        """Whether the text so far is a whole text of the language that also passes the checks at the end."""
        if self.broken or not self._matcher.is_accepting():
            return False
        return not self._guide.checks_text or self._guide.satisfied(self.text())

    def text(self) -> bytes:
        """The text so far."""
        view = self._vocabulary.token_bytes
        return b"".join([view[token] for token in self.tokens])
