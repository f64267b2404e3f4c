"""Two validators with formats; the public harness's mistake is not repeated."""

from __future__ import annotations

from typing import Any

import pytest

from ventris.bench.structured import validators
from ventris.bench.structured.validators import Verdict, judge
from ventris.engine.errors import BadInput

ADDRESSES = [
    ("ipv4", "192.0.2.1", "192.0.2.256"),
    ("ipv6", "2001:db8::1", "2001:db8"),
    ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
    ("date-time", "2024-02-29T10:00:00Z", "2023-02-29T10:00:00Z"),
    ("hostname", "a.example", "-a.example"),
    ("duration", "P3D", "3 days"),
    ("uri", "https://example.org/a", "example"),
]


@pytest.mark.parametrize(("name", "good", "bad"), ADDRESSES)
def test_formats_are_checked_and_valid_ones_pass(name: str, good: str, bad: str) -> None:
    schema = {"type": "string", "format": name}
    assert judge(schema, good) == Verdict(True, True)
    assert judge(schema, bad).valid is False
    assert not judge(schema, bad).disagree


def test_the_schemas_own_draft_counts() -> None:
    old: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "minimum": 1,
        "exclusiveMinimum": True,
    }
    assert not judge(old, 1).valid
    assert judge(old, 2).valid
    assert judge({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}, "minimum": 3}, 2).valid is False


def test_nothing_is_fetched() -> None:
    verdict = judge({"$ref": "http://192.0.2.1/schema.json"}, 1)
    assert (verdict.reference, verdict.second, verdict.valid) == (None, None, False)
    assert "cannot judge" in verdict.reason


def test_disagreements_are_no_validity() -> None:
    assert Verdict(True, False).disagree
    assert not Verdict(True, False).valid
    assert Verdict(True, None).valid
    assert not Verdict(True, None).disagree


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validators, "PACKAGES", ("json", "no_such_package"))
    with pytest.raises(BadInput, match=r"no_such_package .*ventris\[structured\]"):
        validators.check_installed()
