"""One question of a benchmark, in any of the forms that prompt files use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """One or more turns for the model.

    Exactly one of ``turns``, ``messages``, ``text`` and ``tokens`` is given.

    Attributes:
        turns: What a user says, one thing after the other; answered turn by turn.
        messages: A conversation up to the answer that is asked for.
        text: A text to be continued, without the chat template.
        tokens: The same as token ids.
    """

    id: str
    category: str
    turns: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    text: str = ""
    tokens: tuple[int, ...] = ()

    @property
    def rounds(self) -> int:
        """Answers it asks for."""
        return max(len(self.turns), 1)
