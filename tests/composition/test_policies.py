"""Every policy with every drafter: the ids of undrafted decoding, greedy and coupled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ventris.cost import CostCurve
from ventris.policy import AcceptanceThreshold, Goodput, SmartSpec
from ventris.testing.checks import run
from ventris.verify import Coupled, Greedy

from .matrix import DRAFTERS, GUIDES, PROMPTS, TARGET

POLICIES: dict[str, Callable[[], Any]] = {
    "goodput": lambda: Goodput(CostCurve((1, 8, 64), (1.0, 1.1, 6.0))),
    "smartspec": lambda: SmartSpec(lambda nodes, context: 1.0 + 0.02 * nodes),
    "acceptance": lambda: AcceptanceThreshold(retry=3),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("drafter", [name for name in DRAFTERS if name != "none"])
def test_policies_change_no_output(policy: str, drafter: str) -> None:
    for guide, verifier, sampling in (
        ("no guide", Greedy(), {}),
        ("mask + model", Coupled(), {"temperature": 1.0, "seed": 3}),
    ):
        plain = run(TARGET, verifier, None, GUIDES[guide](), PROMPTS[:3], **sampling)
        made, drafted = POLICIES[policy](), DRAFTERS[drafter]()
        found = run(TARGET, verifier, drafted, GUIDES[guide](), PROMPTS[:3], policy=made, **sampling)
        assert [completion.tokens for completion in found] == [completion.tokens for completion in plain]
