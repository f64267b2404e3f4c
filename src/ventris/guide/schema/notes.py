"""What becomes of each rule of a schema."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Note:
    """One rule that is not simply enforced.

    Attributes:
        place: JSON pointer of the subschema.
        keyword: The rule.
        reason: Why.
    """

    place: str
    keyword: str
    reason: str

    def __str__(self) -> str:
        return f"{self.keyword} at {self.place or '/'}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Enforcement:
    """How a schema is kept.

    Attributes:
        checked_at_end: Rules that no mask enforces: the finished text is checked against them, and
            ``Completion.valid`` tells. Without any, every finished text is valid by construction.
        not_rules: Keywords that the specification gives no power to refuse anything, such as formats that
            it does not define.
    """

    checked_at_end: tuple[Note, ...] = ()
    not_rules: tuple[Note, ...] = ()

    @property
    def enforced(self) -> bool:
        """True if every finished text is valid by construction."""
        return not self.checked_at_end


@dataclass(slots=True)
class Notebook:
    """Notes while a schema is being rewritten."""

    checked_at_end: dict[tuple[str, str], Note] = field(default_factory=dict)
    not_rules: dict[tuple[str, str], Note] = field(default_factory=dict)

    def check(self, place: str, keyword: str, reason: str) -> None:
        """The rule is left to the check at the end."""
        self.checked_at_end.setdefault((place, keyword), Note(place, keyword, reason))

    def no_rule(self, place: str, keyword: str, reason: str) -> None:
        """The keyword rules nothing."""
        self.not_rules.setdefault((place, keyword), Note(place, keyword, reason))

    def enforcement(self) -> Enforcement:
        return Enforcement(tuple(self.checked_at_end.values()), tuple(self.not_rules.values()))
