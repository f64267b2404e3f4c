"""What OmniDraft remembers about one request: the text in draft ids, the last draft, what is to be learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import torch
from torch import Tensor

from ventris.draft.omnidraft.learner import Judged, Lesson, Passage
from ventris.draft.omnidraft.translator import Word
from ventris.engine.parts import RequestView
from ventris.engine.stream import Stream
from ventris.engine.tree import TokenTree

CONTEXT = 128
"""Draft ids before the first lesson that a passage begins with."""

LESSONS = "omnidraft lessons"
"""Owner of the target's logits that are kept to be learnt from."""


@dataclass(slots=True)
class Draft:
    """What was drafted last.

    Attributes:
        ids: Drafted ids, without the root.
        shares: How likely the draft model found each of them.
        words: Their translation, as far as it was proposed.
        rows: The draft model's last row at each of ``ids``, ``[d]``; those read so far.
    """

    ids: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)


@dataclass(slots=True)
class Session:
    """One request.

    Attributes:
        stream: The draft model's; ``None`` where the request cannot be read (embeddings in the prompt).
        ids: Prompt and output so far.
        draft: What was drafted last.
        rounds: Verifications since the last passage.
        booked: Bytes of ``logits`` in the ledger.
    """

    request: RequestView
    stream: Stream | None
    ids: list[int]
    draft: Draft = field(default_factory=Draft)
    rounds: int = 0
    booked: int = 0
    lessons: list[Lesson] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)

    def matched(self, tokens: Sequence[int]) -> list[Word]:
        """The words of the last draft that were emitted."""
        pairs = zip(self.draft.words, tokens, strict=False)
        return [word for word, _ in takewhile(lambda pair: pair[0].token == pair[1], pairs)]

    def advance(self, spelled: Sequence[int]) -> None:
        """Move on by emitted tokens in draft ids; cache rows stay as far as they were drafted so."""
        self.ids += spelled
        self.draft = Draft()
        stream = self.stream
        if stream is None:
            return
        if not spelled:
            stream.discard()
            return
        path = TokenTree.chain([stream.pending[-1], *spelled[:-1]])
        stream.advance(path, range(len(path)), spelled[-1])

    def reread(self, length: int) -> None:
        """Go on from the last ``length`` ids, as the text has outgrown the draft model's context."""
        if self.stream is not None:
            self.stream.rewind(0, self.ids[-length:])

    def book(self, size: int) -> bool:
        """Book logits until they are handed out; false, and nothing is booked, if they do not fit."""
        try:
            self.request.ledger.charge(LESSONS, size)
        except MemoryError:
            return False
        self.booked += size
        return True

    def passage(self) -> tuple[Passage, Judged] | None:
        """What there is to be learnt since the last passage, if there is anything; it is handed out once."""
        lessons, logits, self.lessons, self.logits = self.lessons, self.logits, [], []
        rows, chances, self.rows, self.chances = self.rows, self.chances, [], []
        self.request.ledger.charge(LESSONS, -self.booked)
        self.rounds = self.booked = 0
        if not lessons:
            return None
        first = max(lessons[0].start - CONTEXT, 0)
        moved = [replace(lesson, start=lesson.start - first, stop=lesson.stop - first) for lesson in lessons]
        passage = Passage(self.ids[first : lessons[-1].stop], moved, torch.stack(logits))
        return passage, Judged(torch.stack(rows) if rows else torch.empty(0, 0), torch.tensor(chances))
