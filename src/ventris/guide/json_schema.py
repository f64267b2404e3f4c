"""``json-schema`` and ``json``: the answer is JSON, of a given form or of any."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack

from llguidance import LLMatcher
from pydantic import BaseModel, Field

from ventris.engine.errors import BadInput
from ventris.guide.back_ends.choice import ALL, LLGUIDANCE, BackEndName
from ventris.guide.back_ends.from_schema import from_schema
from ventris.guide.back_ends.language import Language
from ventris.guide.compile import GrammarRefused
from ventris.guide.hard import HardGuide, HardSettings, with_back_ends, with_hard_options
from ventris.guide.matcher import Matcher
from ventris.guide.schema.formats import AT_END
from ventris.guide.schema.notes import Enforcement
from ventris.guide.schema.rewrite import rewrite
from ventris.guide.schema.source import Schema, read_schema
from ventris.guide.vocabulary import Vocabulary

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

Whitespace = Literal["compact", "spaced", "flexible"]

WHITESPACE: dict[str, JsonCompileOptions] = {
    "compact": {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"},
    "spaced": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
    # Bounded, since small models left alone with blanks may write nothing else.
    "flexible": {"whitespace_flexible": True, "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,64}"},
}

# What to leave to the check at the end when the back end refuses a rewritten schema, by the words of its
# refusal; the last entry is the answer to everything that is too large for it.
RELAXATIONS = (
    ("patternProperty", frozenset({"patternProperties"})),
    ("min/maxProperties", frozenset({"minProperties"})),
    ("regex", frozenset({"pattern"})),
    ("", frozenset({"oneOf", "not", "if", "dependencies"})),
)


LAST_BYTES = {b"{": b"}", b"[": b"]", b'"': b'"'}


class JsonSchema(HardGuide):
    """Allows the JSON texts that are valid under a schema, with properties in the schema's order.

    What a mask cannot keep is checked at the end of the text and told by ``Completion.valid``;
    :attr:`enforcement` says beforehand what that is.

    Args:
        schema: A schema as dictionary, JSON text or file; a pydantic model, data class or ``TypedDict``; one
            component of a file: ``"openapi.json#/components/schemas/Invoice"``.
        whitespace: ``"compact"``: none. ``"spaced"``: one blank behind ``,`` and ``:``. ``"flexible"``: up
            to 64 blanks or line breaks between any two tokens of JSON.
        strict: Refuse a schema with rules that no mask can keep.
    """

    name = "json-schema"
    back_ends: ClassVar[tuple[BackEndName, ...]] = ALL

    with warnings.catch_warnings():
        # The option has the name that everybody expects; pydantic has an old method of that name.
        warnings.simplefilter("ignore")

        @with_back_ends
        @with_hard_options
        class Options(BaseModel):
            schema: str = Field(description="file with a JSON schema, or its text")  # type: ignore[assignment]
            whitespace: Whitespace = Field("compact", description="compact, spaced or flexible")
            strict: bool = Field(False, description="refuse rules that are checked only at the end")

    def __init__(
        self,
        schema: Any,
        *,
        whitespace: Whitespace = "compact",
        strict: bool = False,
        **settings: Unpack[HardSettings],
    ) -> None:
        super().__init__(**settings)
        if whitespace not in WHITESPACE:
            raise BadInput(f"whitespace is {whitespace!r}; it must be one of: {', '.join(WHITESPACE)}")
        self.schema: Schema = read_schema(schema, self.limits)
        self.whitespace = whitespace
        self.strict = strict
        self._relaxed: frozenset[str] = frozenset()
        self._enforcement: Enforcement | None = None
        self._slow = False

    @property
    def enforcement(self) -> Enforcement:
        """What the mask keeps and what only the check at the end; final once the guide is bound."""
        if self._enforcement is None:
            return self._expected()
        return self._enforcement

    def _expected(self) -> Enforcement:
        """What the mask will keep as things stand."""
        rewritten, noted = rewrite(self.schema, self.limits, self._relaxed)
        if self.backend == LLGUIDANCE:
            return noted
        return from_schema(rewritten, noted, self.whitespace, self.limits)[1]

    def language(self) -> Language:
        """The rewritten schema written out; see :mod:`ventris.guide.back_ends.from_schema`."""
        rewritten, noted = rewrite(self.schema, self.limits)
        language, self._enforcement = from_schema(rewritten, noted, self.whitespace, self.limits)
        return language

    def grammar(self) -> str:
        """The rewritten schema, which llguidance compiles itself."""
        schema, self._enforcement = rewrite(self.schema, self.limits, self._relaxed)
        if schema is False:
            raise BadInput("the schema allows nothing")
        return LLMatcher.grammar_from_json_schema(
            json.dumps({} if schema is True else schema), overrides=WHITESPACE[self.whitespace]
        )

    def compile(self, vocabulary: Vocabulary) -> Matcher:
        """The matcher; what the back end cannot take is left to the check at the end, unless ``strict``."""
        made = self._compiled(vocabulary)
        if self.refuses_broken_ends:
            # What takes long the first time must not fall into a step.
            vocabulary.checker.faults([], self._text, AT_END, self.limits)
        return made

    def _compiled(self, vocabulary: Vocabulary) -> Matcher:
        if self.backend != LLGUIDANCE:
            made = super().compile(vocabulary)
            self._refuse_unmasked()
            return made
        while True:
            self._refuse_unmasked()
            try:
                return super().compile(vocabulary)
            except GrammarRefused as error:
                relaxed = self._relaxed | self._relaxation(str(error))
                if relaxed == self._relaxed:
                    raise
                self._relaxed = relaxed

    def _relaxation(self, refusal: str) -> frozenset[str]:
        fitting = (keywords for words, keywords in RELAXATIONS if words in refusal)
        return next((keywords for keywords in fitting if not keywords <= self._relaxed), frozenset())

    def _refuse_unmasked(self) -> None:
        if self.strict and (notes := self._expected().checked_at_end):
            raise BadInput(
                f"guide {self.name!r} is strict, and no mask can keep {notes[0]}; "
                "take the rule out, or set strict to false to have the finished text checked"
            )

    @property
    def checks_text(self) -> bool:
        return not self.enforcement.enforced

    @property
    def unmasked(self) -> list[str]:
        """Keywords that no mask keeps, each once."""
        return sorted({note.keyword for note in self.enforcement.checked_at_end})

    def satisfied(self, text: bytes) -> bool:
        """Whether a complete text is valid under the whole schema."""
        assert self._vocabulary is not None
        [fault] = self._vocabulary.worker.faults([text.decode()], self._text, AT_END, self.limits)
        return not fault

    def satisfied_meanwhile(self, texts: Sequence[bytes]) -> list[bool]:
        """As :meth:`satisfied`, of several texts; all true once that takes longer than ``check_seconds``."""
        assert self._vocabulary is not None
        if not self._slow:
            limits = replace(self.limits, compile_seconds=self.limits.check_seconds)
            spelled = [text.decode() for text in texts]
            try:
                found = self._vocabulary.checker.faults(spelled, self._text, AT_END, limits)
                return [not fault for fault in found]
            except BadInput:
                self._slow = True
        return [True] * len(texts)

    @cached_property
    def _text(self) -> str:
        return json.dumps(self.schema)

    def last_bytes(self, text: bytes) -> bytes:
        """The bracket or quote that closes what was opened; else the end of a word or number."""
        return LAST_BYTES.get(text.lstrip()[:1], b'}]"el0123456789')


class Json(JsonSchema):
    """Allows any JSON text.

    Args:
        kind: ``"any"`` value, or ``"object"`` or ``"array"``.
    """

    name = "json"

    @with_back_ends
    @with_hard_options
    class Options(BaseModel):
        kind: Literal["any", "object", "array"] = Field("any", description="any, object or array")
        whitespace: Whitespace = Field("compact", description="compact, spaced or flexible")

    def __init__(
        self,
        kind: Literal["any", "object", "array"] = "any",
        *,
        whitespace: Whitespace = "compact",
        **settings: Unpack[HardSettings],
    ) -> None:
        schema = {} if kind == "any" else {"type": kind}
        super().__init__(schema, whitespace=whitespace, **settings)
