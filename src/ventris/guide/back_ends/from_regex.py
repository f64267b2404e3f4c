"""Regular expressions read as languages; what the readers of such expressions disagree about is refused."""

from __future__ import annotations

from dataclasses import dataclass

from ventris.engine.errors import BadInput
from ventris.guide.back_ends.language import (
    EMPTY,
    Chars,
    Node,
    Text,
    chars,
    either,
    repeat,
    row,
    without,
)
from ventris.guide.back_ends.quoted import ANY_CHARACTER

WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
CLASSES = {"d": "0123456789", "w": WORD, "s": " \t\n\r\f\v\u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff"}
CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
ANY_BUT_BREAK = Chars(without(((ord("\n"), ord("\n")),)))


def from_regex(pattern: str, *, whole: bool, ascii_classes: bool) -> Node:
    r"""The texts that match.

    Args:
        whole: The whole text matches; otherwise some part of it, as in a schema's ``pattern``.
        ascii_classes: ``\d``, ``\w`` and ``\s`` are those of ECMA-262; otherwise they are refused, since they
            stand for thousands of characters.

    Raises:
        BadInput: naming what cannot be read.
    """
    try:
        return _Reader(pattern, whole, ascii_classes).read()
    except RecursionError:
        raise BadInput(f"regex {pattern[:40]!r} is nested too deeply") from None


@dataclass(slots=True)
class _Reader:
    pattern: str
    whole: bool
    ascii_classes: bool
    place: int = 0

    def read(self) -> Node:
        around = EMPTY if self.whole else repeat(ANY_CHARACTER)
        arms: list[Node] = []
        while True:
            before = EMPTY if self._take("^") else around
            body = self._sequence()
            behind = EMPTY if self._take("$") else around
            arms.append(row(before, body, behind))
            if not self._take("|"):
                break
        if self.place < len(self.pattern):
            raise self._refused(f"{self.pattern[self.place]!r}")
        return either(*arms)

    def _refused(self, what: str) -> BadInput:
        return BadInput(
            f"regex {self.pattern[:80]!r}: this back end does not read {what} (at character {self.place}); "
            "write it otherwise, or leave backend at llguidance"
        )

    def _take(self, text: str) -> bool:
        found = self.pattern.startswith(text, self.place)
        self.place += len(text) * found
        return found

    def _next(self) -> str:
        if self.place >= len(self.pattern):
            raise self._refused("an expression that breaks off")
        self.place += 1
        return self.pattern[self.place - 1]

    def _choice(self) -> Node:
        arms = [self._sequence()]
        while self._take("|"):
            arms.append(self._sequence())
        return either(*arms)

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self.place < len(self.pattern) and self.pattern[self.place] not in "|)$":
            parts.append(self._repeated(self._atom()))
        return row(*parts)

    def _repeated(self, atom: Node) -> Node:
        if self._take("*"):
            bounds: tuple[int, int | None] | None = (0, None)
        elif self._take("+"):
            bounds = (1, None)
        elif self._take("?"):
            bounds = (0, 1)
        else:
            bounds = self._count()
        if bounds is None:
            return atom
        # A lazy repetition has the same language.
        self._take("?")
        if self.pattern[self.place : self.place + 1] in ("*", "+", "?", "{"):
            raise self._refused("a repetition of a repetition")
        return repeat(atom, *bounds)

    def _count(self) -> tuple[int, int | None] | None:
        if not self._take("{"):
            return None
        end = self.pattern.find("}", self.place)
        least, comma, most = self.pattern[self.place : max(end, self.place)].partition(",")
        if (
            not least.isdecimal()
            or not least.isascii()
            or (most and not (most.isdecimal() and most.isascii()))
        ):
            raise self._refused("'{' without a count")
        self.place = end + 1
        return int(least), int(most) if most else None if comma else int(least)

    def _atom(self) -> Node:
        letter = self._next()
        if letter == "(":
            return self._group()
        if letter == "[":
            return self._class()
        if letter == ".":
            return ANY_BUT_BREAK
        if letter == "\\":
            return self._escape()
        if letter in "*+?{}]^":
            self.place -= 1
            raise self._refused(f"{letter!r} in this place")
        return Text(letter)

    def _group(self) -> Node:
        if self._take("?") and not self._take(":"):
            named = self._take("P<") or self._take("<")
            name = ""
            while named and (letter := self._next()) != ">":
                name += letter
            if not name.isidentifier():
                raise self._refused("look-around and flags")
        inside = self._choice()
        if not self._take(")"):
            raise self._refused("an anchor or an open bracket inside brackets")
        return inside

    def _escape(self) -> Node:
        letter = self._next()
        if letter.lower() in CLASSES:
            found = self._named(letter)
            return Chars(found)
        return Text(self._character(letter))

    def _named(self, letter: str) -> tuple[tuple[int, int], ...]:
        if not self.ascii_classes:
            raise self._refused(rf"'\{letter}'; write the characters in [ ]")
        found = chars(CLASSES[letter.lower()])
        assert isinstance(found, Chars)
        return without(found.ranges) if letter.isupper() else found.ranges

    def _character(self, letter: str) -> str:
        if letter in CONTROLS:
            return CONTROLS[letter]
        if letter in "xu":
            size = 2 if letter == "x" else 4
            digits = self.pattern[self.place : self.place + size]
            try:
                code = int(digits, 16)
            except ValueError:
                raise self._refused(rf"'\{letter}{digits}'") from None
            if len(digits) < size or 0xD800 <= code <= 0xDFFF:
                raise self._refused(rf"'\{letter}{digits}'")
            self.place += size
            return chr(code)
        if letter.isascii() and not letter.isalnum():
            return letter
        raise self._refused(rf"'\{letter}'")

    def _begins_range(self) -> bool:
        """A hyphen at the end of a class is one."""
        return self.pattern.startswith("-", self.place) and not self.pattern.startswith("-]", self.place)

    def _class(self) -> Node:
        negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        if self.pattern.startswith("]", self.place):
            raise self._refused("']' at the beginning of a class")
        while (letter := self._next()) != "]":
            if letter == "[" or self.pattern[self.place - 1 : self.place + 1] in ("&&", "--", "~~"):
                raise self._refused(f"a bare {letter!r} in a class")
            if letter == "\\":
                letter = self._next()
                if letter.lower() in CLASSES:
                    ranges += self._named(letter)
                    continue
                letter = self._character(letter)
            last = letter
            if self._begins_range():
                self.place += 1
                last = self._next()
                if last == "\\":
                    last = self._next()
                    if last.lower() in CLASSES:
                        raise self._refused("a range that ends in a class")
                    last = self._character(last)
                elif last == "[":
                    raise self._refused("a bare '[' in a class")
            if last < letter:
                raise self._refused(f"the range {letter}-{last}")
            ranges.append((ord(letter), ord(last)))
        found = tuple(ranges)
        return Chars(without(found)) if negated else Chars(without(without(found)))
