"""The operator's policy plans for the requests of all clients together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serve.running import NAME, running
from ventris.model import Model
from ventris.policy import SmartSpec


def test_one_policy_plans_for_all_streams(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[tuple[int, int, int]] = []
    plan = SmartSpec.plan

    def watched(self, records, load):
        planned.append((id(self), len(records), load.running))
        return plan(self, records, load)

    monkeypatch.setattr(SmartSpec, "plan", watched)
    chosen = {"draft": "ngram", "policy": "smartspec"}
    body = {"model": NAME, "prompt": "ab " * 8, "max_tokens": 48, "ventris": {"ignore_eos": True}}
    with running(model, defaults=chosen) as server, ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: server.ask("POST", "/v1/completions", body), range(4)))
    assert [reply.status for reply in replies] == [200] * 4, replies[0].body
    assert len({policy for policy, _, _ in planned}) == 1
    assert max(records for _, records, _ in planned) > 1
    # The batch that it sees is the one that it plans for: nobody has a policy of his own.
    assert any(records == running_ > 1 for _, records, running_ in planned)


def test_a_client_may_name_the_operators_policy_and_shares_it(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    planners: set[int] = set()
    plan = SmartSpec.plan

    def watched(self, records, load):
        planners.add(id(self))
        return plan(self, records, load)

    monkeypatch.setattr(SmartSpec, "plan", watched)
    body = {"model": NAME, "prompt": "ab " * 8, "max_tokens": 16}
    with running(model, defaults={"draft": "ngram", "policy": "smartspec"}) as server:
        for own in ({"policy": "smartspec"}, {}):
            reply = server.ask("POST", "/v1/completions", {**body, "ventris": {"ignore_eos": True, **own}})
            assert reply.status == 200, reply.body
    assert len(planners) == 1


def test_a_policy_for_all_requests_is_the_operators_to_choose(model: Model) -> None:
    body = {"model": NAME, "prompt": "ab", "ventris": {"policy": "smartspec"}}
    with running(model) as server:
        reply = server.ask("POST", "/v1/completions", body)
    assert reply.status == 400
    assert b"it offers: fixed, goodput" in reply.body
