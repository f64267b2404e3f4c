"""The law of what comes out of the loop, all outcomes of all draws enumerated, beside the target's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from unittest import mock

from ventris.engine.batch import Engine
from ventris.engine.errors import VentrisError
from ventris.engine.parts import Drafter
from ventris.engine.request import Request
from ventris.engine.sampling import Sampling, distribution
from ventris.engine.verifier import Verifier
from ventris.policy.fixed import Fixed
from ventris.testing.enumeration import ScriptedRandomness, enumerate_outcomes
from ventris.testing.toy import ToyTarget

Law = dict[tuple[int, ...], float]
"""Texts with their probabilities."""

PROMPT = (1,)

DRAWING = Sampling(temperature=1.0)


def text_law(
    target: ToyTarget,
    make_verifier: Callable[[], Verifier],
    make_drafter: Callable[[], Drafter],
    tokens: int,
    prompt: Sequence[int] = PROMPT,
) -> Law:
    """The law of the first tokens after a prompt, drawn at temperature 1.

    The engine's own addresses of random numbers hold: two draws that look at one number are not independent.

    Raises:
        VentrisError: with the message of a request that failed.
    """

    def once(random: ScriptedRandomness) -> tuple[int, ...]:
        engine = Engine(target)
        completion = engine.add(
            Request(
                list(prompt), make_verifier(), Fixed(), tokens, DRAWING, make_drafter(), share_prefix=False
            )
        )
        with mock.patch("ventris.engine.parts.PositionRandomness", random.at):
            for _ in engine.run():
                pass
        if completion.error is not None:
            raise VentrisError(completion.error)
        return tuple(completion.tokens)

    return enumerate_outcomes(once)


def target_probability(target: ToyTarget, text: Sequence[int], prompt: Sequence[int] = PROMPT) -> float:
    """The probability that the target itself gives a text."""
    probability = 1.0
    for place, token in enumerate(text):
        row = target.logits([*prompt, *text[:place]]).numpy()
        probability *= float(distribution(row, DRAWING)[token])
    return probability


def largest_error(law: Law, target: ToyTarget, prompt: Sequence[int] = PROMPT) -> float:
    """How far the probability of any text, or the sum of all, is from what it should be, at most.

    Texts that ``law`` leaves out count too.

    Args:
        law: Of texts of one length.
    """
    texts = product(range(target.vocab_size), repeat=len(next(iter(law))))
    errors = [abs(target_probability(target, text, prompt) - law.get(text, 0.0)) for text in texts]
    return max(abs(sum(law.values()) - 1.0), *errors)


def total_variation(law: Law, target: ToyTarget, prompt: Sequence[int] = PROMPT) -> float:
    """Total variation distance of ``law`` from the target's own; 0 for an exact rule.

    Texts that ``law`` leaves out count for what the target gives them.
    """
    own = {text: target_probability(target, text, prompt) for text in law}
    apart = sum(abs(own[text] - chance) for text, chance in law.items())
    return 0.5 * (apart + 1.0 - sum(own.values()))


def beginnings(law: Law, tokens: int) -> Law:
    """The law of the first few tokens."""
    shorter: Law = {}
    for text, chance in law.items():
        shorter[text[:tokens]] = shorter.get(text[:tokens], 0.0) + chance
    return shorter
