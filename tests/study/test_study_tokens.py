"""Where a small model would have written something else, on pairs of which that is known."""

from __future__ import annotations

import pytest
import torch
from known_pairs import PROMPTS, DiffersAt, large, seen_with

from ventris.draft import DraftModel
from ventris.engine.errors import BadInput
from ventris.guide.fuse import Fuse
from ventris.model import Model
from ventris.study.profiles import DRAFTED, begins_pass, profile
from ventris.study.run import write
from ventris.study.seen_tokens import CHUNK, Answer, Beliefs, see
from ventris.study.shares import share
from ventris.study.small_models import FirstLayers, Listed, load_small
from ventris.testing import ToyTarget


def test_a_small_model_that_is_the_large_one_never_needs_it():
    answers = write(Model(large()), PROMPTS, 20)
    seen = see(large(), answers)
    assert len(seen) == 20 * len(PROMPTS)
    assert not seen.mismatch.any()
    assert profile(seen).frequency.value == 0
    assert profile(seen).areas == {"confidence": None, "margin": None, "entropy": None}


def test_a_pair_that_differs_at_known_places_differs_exactly_there():
    prompt = [1, 2, 3]
    # Beyond a chunk, and at its borders.
    places = [0, 5, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3]
    answers = write(Model(large()), [prompt], 2 * CHUNK + 10)
    seen = see(DiffersAt(8, [len(prompt) + place for place in places]), answers)
    assert seen.place[seen.mismatch].tolist() == places
    assert seen.length.unique().tolist() == [2 * CHUNK + 10]


def test_beliefs_are_those_of_the_model_at_each_prefix():
    small = ToyTarget(8, seed=3, sharpness=2.0)
    (answer,) = write(Model(large()), [[1, 2]], 12)
    beliefs = see(small, [answer]).beliefs
    text = list(answer.prompt)
    for place, token in enumerate(answer.tokens):
        law = small.logits(text).softmax(-1)
        assert int(beliefs.choice[place]) == int(law.argmax())
        assert torch.allclose(beliefs.top[place, :8], law.sort(descending=True).values.float())
        assert beliefs.top[place, 8:].tolist() == [0, 0]
        assert float(beliefs.entropy[place]) == pytest.approx(-float((law * law.log()).sum()), rel=1e-5)
        text.append(token)


def test_frequency_is_one_minus_the_acceptance_of_one_token_drafts():
    target, small = large(), ToyTarget(8, sharpness=3.0, blend=(4, 0.3))
    model = Model(target)
    answers = write(model, PROMPTS, 24)
    seen = see(small, answers)
    for number, prompt in enumerate(PROMPTS):
        # One draft a step, and steps where it was kept pass over a token: compare token by token instead.
        mine = seen.mismatch[seen.question == number].tolist()
        done = model.generate(
            prompt, max_new_tokens=24, draft=DraftModel(small, depth=1), policy="fixed", trace=True
        )
        assert done.tokens == answers[number].tokens
        place = 0
        for step in done.trace.steps:
            if len(step.tokens) > 1:
                assert mine[place] == (len(step.path) == 1)
            place += len(step.visits)


@pytest.mark.parametrize("blend", [0.1, 0.3, 0.6])
def test_passes_are_those_of_exact_speculative_decoding(blend):
    model, small = Model(large()), ToyTarget(8, sharpness=3.0, blend=(4, blend))
    answers = write(model, PROMPTS, 31)
    seen = see(small, answers)
    for drafted in (1, 2, DRAFTED):
        drafter = DraftModel(small, depth=drafted)
        done = model.generate(PROMPTS, max_new_tokens=31, draft=drafter, policy="fixed")
        begun = begins_pass(seen, drafted)
        for number, completion in enumerate(done):
            assert completion.tokens == answers[number].tokens
            assert int(begun[seen.question == number].sum()) == completion.stats.steps
    assert profile(seen).passes.value == pytest.approx(float(begun.float().mean()))


def test_text_fused_with_a_small_model_is_what_is_looked_at():
    small = ToyTarget(8, sharpness=3.0, blend=(4, 0.5))
    model = Model(large())
    wholly = write(model, PROMPTS, 16, Fuse(small, "interpolate", weight=0.0, plausible=0.0))
    assert not see(small, wholly).mismatch.any()
    halfway = write(model, PROMPTS, 16, Fuse(small, "mixture"))
    assert (
        0
        < int(see(small, halfway).mismatch.sum())
        < int(see(small, write(model, PROMPTS, 16)).mismatch.sum())
    )


def test_an_answer_beyond_the_small_model_s_context_is_refused():
    with pytest.raises(BadInput, match=r"come to 12 tokens, and a small model takes 10"):
        see(ToyTarget(8, context_length=10), [Answer([1, 2], [1] * 10, True)])


def test_an_answer_without_a_token_is_passed_over():
    full = Answer([1, 2], [1, 3], False)
    seen = see(large(), [full, Answer([1], [], False), full])
    assert seen.question.tolist() == [0, 0, 2, 2]
    assert profile(seen).frequency.tokens == 4
    for answers in ([], [Answer([1], [], False)]):
        with pytest.raises(BadInput, match="no token in any answer"):
            see(large(), answers)


def test_listed_tokens_as_a_whole_vocabulary():
    class Narrow(ToyTarget):
        """Takes any of 8 tokens, and scores 3."""

        def logits(self, prefix):
            return super().logits(prefix)[[1, 4, 6]]

        def head(self, hidden):
            rows = super().head(hidden)
            return rows if len(rows) else rows[:, :3]

    whole = Listed(Narrow(8), [1, 4, 6], 8)
    (answer,) = write(Model(large()), [[1, 2]], 10)
    seen = see(whole, [answer])
    assert set(seen.beliefs.choice.tolist()) <= {1, 4, 6}
    assert torch.allclose(seen.beliefs.top[:, :3].sum(1), torch.ones(10))
    text = list(answer.prompt)
    for place, token in enumerate(answer.tokens):
        row = ToyTarget(8).logits(text)
        assert int(seen.beliefs.choice[place]) == max((1, 4, 6), key=lambda one: float(row[one]))
        text.append(token)


def test_all_layers_are_the_model_itself():
    answers = write(Model(large()), PROMPTS, 12)
    assert not see(FirstLayers(large(), 1), answers).mismatch.any()


def test_equal_logits_choose_as_the_engine_does():
    assert Beliefs.of(torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])).choice.tolist() == [1, 0]


def test_places_are_tenths_of_each_answer():
    mismatch = torch.zeros(60, dtype=torch.bool)
    # Two answers of 30: the first three tokens of each are its first tenth.
    mismatch[[0, 1, 2, 30, 32, 15]] = True
    found = profile(seen_with(torch.full((60,), 0.5), mismatch, 2))
    assert [one.mismatches.value for one in found.positions] == pytest.approx(
        [5 / 6, 0, 0, 0, 0, 1 / 6, 0, 0, 0, 0]
    )
    assert found.first_tenth.value == pytest.approx(5 / 6)
    assert found.rest.value == pytest.approx(1 / 54)
    assert sum(one.of_mismatches for one in found.positions) == pytest.approx(1)
    assert sum(one.of_matches for one in found.positions) == pytest.approx(1)


def test_confidence_bins_hold_the_tokens_of_that_confidence():
    top = torch.tensor([0.05, 0.15, 0.15, 0.95, 1.0, 1.0])
    mismatch = torch.tensor([True, True, False, False, False, True])
    found = profile(seen_with(top, mismatch, 3)).confidences
    assert [one.mismatches.tokens for one in found] == [1, 2, 0, 0, 0, 0, 0, 0, 0, 3]
    assert found[1].mismatches.value == 0.5
    assert found[2].mismatches.value is None
    assert found[9].of_mismatches == pytest.approx(1 / 3)


def test_intervals_know_that_tokens_of_an_answer_hang_together():
    question = torch.arange(10).repeat_interleave(50)
    everything = torch.ones(500, dtype=torch.bool)
    together = question < 5
    scattered = torch.arange(500) % 2 == 0
    wide, narrow = share(together, everything, question), share(scattered, everything, question)
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > 0.4
    assert narrow.high - narrow.low < 1e-9
    assert share(together, everything & (question < 2), question).low is None
    assert share(together, ~everything, question).value is None


def test_an_interval_is_of_the_answers_at_hand_whatever_their_numbers():
    question = torch.arange(8).repeat_interleave(25)
    hits = torch.arange(200) % 25 < question
    everything = torch.ones(200, dtype=torch.bool)
    # As the judged half of a study has them: odd numbers alone.
    assert share(hits, everything, 2 * question + 1) == share(hits, everything, question)


def test_none_and_all_have_no_interval():
    question, everything = torch.arange(10).repeat_interleave(50), torch.ones(500, dtype=torch.bool)
    for hits, value in ((~everything, 0.0), (everything, 1.0)):
        found = share(hits, everything, question)
        assert (found.value, found.low, found.high) == (value, None, None)


def test_logits_beyond_the_vocabulary_are_left_out():
    answers = write(Model(large()), PROMPTS, 8)
    longer = Listed(ToyTarget(11, sharpness=3.0), range(8), 8)
    assert int(see(longer, answers).beliefs.choice.max()) < 8
    shorter = Listed(ToyTarget(5, sharpness=3.0), range(5), 8)
    assert int(see(shorter, answers).beliefs.choice.max()) < 5


def test_models_of_one_family_may_score_more_tokens():
    further = ToyTarget(11, sharpness=3.0)
    model = Model(large(), load_further=lambda name, dtype: (further, None, None))
    assert model.further_model("longer", any_size=True) is further
    with pytest.raises(BadInput, match="has 11 tokens and the target 8"):
        model.further_model("longer")
    with pytest.raises(BadInput, match="cannot tell how many parameters 'longer' has"):
        load_small(model, "longer")
