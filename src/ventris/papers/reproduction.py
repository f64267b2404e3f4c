"""What a reproduction hands back: the paper's figure, and ours measured here."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measured figure.

    ``baseline`` is the same quantity, measured in the same run, for what it is compared with; None if there
    is nothing to compare it with. ``error`` is the standard error of ``value``, in its unit; None if it was
    not measured.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Reproduction:
    """A paper's central figure beside the rows measured here, and how long that took in seconds."""

    slug: str
    paper_figure: str
    ours: list[Row]
    seconds: float
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Reproduction":
        """The inverse of :meth:`to_dict`."""
        rows = [Row(**row) for row in data["ours"]]
        return cls(**{**data, "ours": rows, "notes": list(data.get("notes", ()))})

    def to_json(self) -> str:
        """One JSON object. A figure that is not a finite number is refused, as JSON has no word for it."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Reproduction":
        """The inverse of :meth:`to_json`."""
        return cls.from_dict(json.loads(text))
