"""A question asked turn by turn, each contestant going on from its own answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ventris.bench.question import Message, Question
from ventris.engine.errors import BadInput

if TYPE_CHECKING:
    from ventris.models.tokenizer import Tokenizer


class Conversation:
    """The state of one question with one contestant.

    Every contestant gets token ids from the same tokenizer and template, so they all read the same prompt
    as long as their answers agree.

    Args:
        question: What is asked.
        tokenizer: Turns texts into ids; ``None`` serves questions that are token ids.
    """

    def __init__(self, question: Question, tokenizer: Tokenizer | None) -> None:
        self.question = question
        self.tokenizer = tokenizer
        self._history: list[Message] = []

    def prompt(self, turn: int) -> list[int]:
        """Token ids to be answered in a turn, counted from 0.

        Raises:
            BadInput: if the question is text and there is no tokenizer.
        """
        question = self.question
        if question.tokens:
            return list(question.tokens)
        if self.tokenizer is None:
            raise BadInput(f"question {question.id} is text, but the model has no tokenizer; give token ids")
        if question.text:
            return self.tokenizer.encode(question.text, special=True)
        if question.messages:
            return self.tokenizer.chat(question.messages)
        said: list[Message] = [*self._history, {"role": "user", "content": question.turns[turn]}]
        if self.tokenizer.has_chat_template:
            return self.tokenizer.chat(said)
        # A base model gets the conversation as plain text, one contribution a line.
        return self.tokenizer.encode("".join(f"{message['content']}\n" for message in said), special=True)

    def answered(self, turn: int, tokens: Sequence[int]) -> None:
        """Take an answer into the history."""
        if self.question.turns and self.tokenizer is not None:
            self._history.append({"role": "user", "content": self.question.turns[turn]})
            self._history.append({"role": "assistant", "content": self.tokenizer.decode(tokens)})


Ask = Callable[[Question], Conversation]
