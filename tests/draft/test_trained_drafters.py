"""What holds of every trained drafter: the contract, other families, the shortlist, checkpoints."""

from __future__ import annotations

import pytest
import random_heads
from trained import KINDS, PROMPTS, drafter_of, native_place, torch_place, write

from ventris.draft.ngram import NGram
from ventris.draft.stack import Stack
from ventris.engine.errors import BadInput
from ventris.models.parameter_count import parameter_count
from ventris.testing import check_drafter
from ventris.testing.checks import run
from ventris.verify.match import Coupled, Greedy

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "qwen3"])
def test_other_families_and_long_prompts_in_a_batch(kind, family):
    place = torch_place(family)
    drafter = drafter_of(kind, place)
    for verifier, settings in ((Greedy(), {}), (Coupled(), {"temperature": 1.0, "seed": 4})):
        plain = [c.tokens for c in run(place.target, verifier, None, prompts=PROMPTS, **settings)]
        drafted = run(place.target, verifier, drafter, prompts=PROMPTS, **settings)
        assert [c.tokens for c in drafted] == plain
        assert all(c.stats.drafted for c in drafted)


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_on_the_native_runtime(kind, dtype):
    place = native_place(dtype)
    check_drafter(drafter_of(kind, place), place.target)


@every_kind
def test_a_stack_with_another_drafter(kind):
    place = torch_place()
    check_drafter(Stack([NGram(min_match=2), drafter_of(kind, place)]), place.target)


@every_kind
@pytest.mark.parametrize("listed", [1, 2, 17, 96])
def test_the_shortlist_changes_drafts_and_never_outputs(kind, listed):
    place = torch_place(listed=listed)
    drafter = drafter_of(kind, place)
    plain = [c.tokens for c in run(place.target, Greedy(), None, prompts=PROMPTS)]
    assert [c.tokens for c in run(place.target, Greedy(), drafter, prompts=PROMPTS)] == plain


@every_kind
def test_a_step_that_was_given_up_is_asked_again(kind):
    place = torch_place()
    drafter = drafter_of(kind, place)

    class Stuttering:
        proposed = 0

        def __getattr__(self, name):
            return getattr(drafter, name)

        def propose(self, jobs):
            first, again = drafter.propose(jobs), drafter.propose(jobs)
            assert [tree.tokens for tree in again] == [tree.tokens for tree in first]
            self.proposed += sum(len(tree) - 1 for tree in again)
            return again

    plain = [c.tokens for c in run(place.target, Greedy(), None, prompts=PROMPTS)]
    stuttering = Stuttering()
    assert [c.tokens for c in run(place.target, Greedy(), stuttering, prompts=PROMPTS)] == plain
    assert stuttering.proposed > 20


@every_kind
def test_a_checkpoint_drafts_as_the_network_it_was_made_from(kind, tmp_path):
    place = torch_place()
    made = write(kind, place, tmp_path)
    loaded = KINDS[kind].loaded.load(place.target, tmp_path)
    one_by_one = zip(run(place.target, Greedy(), loaded), run(place.target, Greedy(), made), strict=True)
    for one, other in one_by_one:
        assert one.stats.drafted == other.stats.drafted > 0
        assert one.stats.accepted_by_depth == other.stats.accepted_by_depth
        assert one.tokens == other.tokens


@every_kind
def test_another_target_is_refused(kind, tmp_path):
    write(kind, torch_place(), tmp_path)
    with pytest.raises(BadInput, match="trained for another target: this one has other weights"):
        KINDS[kind].loaded.load(random_heads.tiny_target(seed=1), tmp_path)


@pytest.mark.parametrize("kind", ["aligned", "kangaroo", "longspec"])
def test_a_small_decoder_is_counted_with_what_it_does_not_borrow(kind):
    network = KINDS[kind].network(torch_place())
    own = sum(weight.numel() for weight in network.weights().values())
    assert parameter_count(network.decoder()) == own
