"""Is a document valid? Two validators are asked, both with formats, and disagreements are told.

The public harness's own checks of ``ipv4``, ``ipv6`` and ``uuid`` return nothing, which ``jsonschema`` takes
for a failure, so that it counts every such string as invalid. Here the library's own checks are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ventris.engine.errors import BadInput

PACKAGES = ("jsonschema_rs", "rfc3339_validator", "fqdn", "isoduration")
"""Without them, one validator or some formats would be missing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the validators say.

    Attributes:
        reference: Of ``jsonschema``; ``None`` if it cannot judge by this schema.
        second: Of ``jsonschema-rs``.
        reason: The first complaint, or why one of them cannot judge.
    """

    reference: bool | None
    second: bool | None
    reason: str = ""

    @property
    def valid(self) -> bool:
        """Nobody objects, and at least one can tell."""
        known = [one for one in (self.reference, self.second) if one is not None]
        return bool(known) and all(known)

    @property
    def disagree(self) -> bool:
        return self.reference is not None and self.second is not None and self.reference != self.second


def check_installed() -> None:
    """Refuse to judge without the second validator and the packages behind the formats.

    Raises:
        BadInput: naming what to install.
    """
    from importlib.util import find_spec

    missing = [name for name in PACKAGES if not find_spec(name)]
    if missing:
        raise BadInput(
            f"the documents are judged by two validators with formats, and {missing[0]} is not installed; "
            "pip install 'ventris[structured]'"
        )


def judge(schema: Any, instance: Any) -> Verdict:
    """Ask both validators, by the schema's own draft (2020-12 if it names none)."""
    reference, complaint = _reference(schema, instance)
    second, other = _second(schema, instance)
    return Verdict(reference, second, complaint or other)


def _reference(schema: Any, instance: Any) -> tuple[bool | None, str]:
    from jsonschema import Draft202012Validator, validators
    from jsonschema_specifications import REGISTRY

    kind = validators.validator_for(schema, default=Draft202012Validator)
    # A registry of one's own keeps the validator from fetching references.
    validator = kind(schema, registry=REGISTRY, format_checker=Draft202012Validator.FORMAT_CHECKER)
    try:
        first = next(validator.iter_errors(instance), None)
    except Exception as error:  # whatever a strange schema does to the validator
        return None, f"jsonschema cannot judge: {type(error).__name__}: {str(error).splitlines()[0]}"
    return first is None, "" if first is None else first.message[:200]


def _second(schema: Any, instance: Any) -> tuple[bool | None, str]:
    import jsonschema_rs
    from jsonschema import Draft202012Validator, validators

    kind = validators.validator_for(schema, default=Draft202012Validator)
    make = getattr(jsonschema_rs, kind.__name__, jsonschema_rs.Draft202012Validator)
    try:
        validator = make(schema, validate_formats=True, offline=True)
        first = next(iter(validator.iter_errors(instance)), None)
    except Exception as error:  # it refuses schemas that break their meta-schema, among others
        reason = (str(error).splitlines() or [""])[0]
        return None, f"jsonschema-rs cannot judge: {type(error).__name__}: {reason}"
    return first is None, "" if first is None else first.message[:200]
