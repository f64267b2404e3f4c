"""Where a text of a language stands, for one request: masks, forced text, pruning of drafts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from torch import Tensor

from ventris.engine.parts import NodeView
from ventris.engine.sampling import Row, greedy_token
from ventris.engine.tree import TokenTree
from ventris.guide.closing import Deadline
from ventris.guide.compile import gist
from ventris.guide.limits import GuideStopped
from ventris.guide.matcher import Matcher
from ventris.guide.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPARSE = 8
"""Looking at the allowed tokens alone pays if at most one in so many is."""


CANDIDATES = 64
"""Tokens at a place, the likeliest ones, that may follow if the text can still end in time behind them."""


class _Buffer:
    """Room for a packed mask; asking numpy for its address once saves a tenth of a mask's time."""

    def __init__(self, size: int) -> None:
        self.packed = np.empty((size + 31) // 32, dtype=np.uint32)
        self.address = self.packed.ctypes.data


class Form(Protocol):
    """What a state asks of its guide."""

    name: ClassVar[str]
    forced: bool

    @property
    def checks_text(self) -> bool: ...

    def satisfied(self, text: bytes) -> bool: ...


class HardState:
    """A place in a text of the language.

    Args:
        end_ids: Tokens that end the request. Without any, the tokenizer's own may follow a complete text.
    """

    def __init__(
        self, guide: Form, vocabulary: Vocabulary, matcher: Matcher, end_ids: frozenset[int]
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
        in_time = (t for t in best.tolist() if deadline.after(self._matcher, t, self.keeps) is not None)
        left += [token for token in in_time if token not in left]
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

    def allowed(self, width: int) -> NDArray[np.bool_]:
        """Which of the model's ``width`` tokens the grammar lets follow, whatever else is asked of a text.

        None where the guide would stop, or has stopped some text before: a drafter must not spend the text's
        time on that.
        """
        if self.broken:
            return np.ones(width, dtype=np.bool_)
        if self._matcher.dear:
            return np.zeros(width, dtype=np.bool_)
        # A mask that passes a limit stops the matcher that it was asked of; the text may never need this one.
        try:
            return ~HardState._forbidden(self.fork(), width)
        except GuideStopped:
            return np.zeros(width, dtype=np.bool_)

    def following(self, tokens: Sequence[int]) -> tuple[list[int], bool]:
        """Which of some tokens the grammar lets follow, as :meth:`allowed`; asked for or not, the only one.

        Returns:
            Tokens, and whether no other may follow.
        """
        forced = [] if self.ended or self.broken else self._matcher.compute_ff_tokens()
        if forced and not self._is_end(forced[0]):
            return forced[:1], True
        return [token for token in tokens if self._fits(token)], False

    def _is_end(self, token: int) -> bool:
        return token in self._ends or token in self._vocabulary.end_ids

    def _fits(self, token: int) -> bool:
        """Whether the grammar lets a token follow where nothing is forced."""
        if self.broken:
            return True
        if token in self._ends:
            return self.ended or self._matcher.is_accepting()
        if self.ended or token >= self._vocabulary.size or token in self._vocabulary.end_ids:
            return False
        return bool(self._matcher.validate_tokens([token]) == 1)

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
            fits = token in self._ends or self.deadline.after(self._matcher, token, self.keeps) is not None
            return token if fits else None
        if not (self.broken or self.ended):
            forced = self._matcher.compute_ff_tokens()
            if forced:
                fits = (
                    not self._is_end(forced[0])
                    and math.isfinite(row[forced[0]])
                    and not self.spoils(forced[0])
                )
                return forced[0] if fits else None
        token = greedy_token(row)
        if self._leaves(token):
            return token
        allowed = np.flatnonzero(~self._forbidden(len(row)))
        if allowed.size * SPARSE > len(row):
            return None
        token = int(allowed[row[allowed].argmax()]) if allowed.size else -1
        return token if token >= 0 and math.isfinite(row[token]) and not self.spoils(token) else None

    def _leaves(self, token: int) -> bool:
        """Whether a token may follow where nothing is forced."""
        return self._fits(token) and (self.broken or self.ended or not self.spoils(token))

    def spoils(self, token: int) -> bool:
        """Whether a token of the language would end the text with a rule broken; as in a checked state."""
        return False

    def keeps(self, tokens: Sequence[int]) -> bool:
        """Whether the text that is whole once ``tokens`` have followed keeps all rules."""
        return True

    def advance(self, token: int) -> None:
        """Follow a token; one that the language forbids leaves the state broken, and nothing masked."""
        if self.broken:
            return
        if self.ended or token in self._ends:
            self.broken = not (token in self._ends and (self.ended or self._matcher.is_accepting()))
            self.ended = True
            return
        if self.deadline is not None and token < self._vocabulary.size:
            self.deadline = self.deadline.advance(self._matcher, token, self.keeps)
        self.tokens.append(token)
        # A refused token would put the matcher into its error state for good.
        if token >= self._vocabulary.size or self._matcher.try_consume_tokens([token]) != 1:
            self.broken = True

    def fork(self) -> HardState:
        """An independent copy."""
        twin = object.__new__(type(self))
        # Quicker than the copy module. A deadline is never changed, only replaced; the buffer keeps nothing.
        twin.__dict__.update(self.__dict__)
        twin.tokens = list(self.tokens)
        twin._matcher = self._matcher.deep_copy()
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
