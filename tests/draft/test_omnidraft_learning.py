"""Online learning: what is minimised, and that it changes no output."""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import pre_tokenizers

from ventris.draft.omnidraft.byte_map import ByteMap
from ventris.draft.omnidraft.learner import SMALLEST, Judged, Learner, Lesson, Passage
from ventris.draft.omnidraft.network import LearningNetwork
from ventris.draft.omnidraft.session import LESSONS
from ventris.engine.ledger import MemoryLedger
from ventris.models.source import resolve
from ventris.parts import build_drafter
from ventris.testing.vocabularies import made_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from two_vocabularies import PROMPTS, drafter


def learner(model, folders, rank=4, **settings) -> Learner:
    source = resolve(folders[1])
    network = LearningNetwork(source.config, source.weights, rank)
    map = ByteMap(source.tokenizer, model.tokenizer, source.config.vocab_size, model.target.vocab_size)
    return Learner(network, map, **settings)


def passage(map: ByteMap, text: str, favourite: str | None = None) -> Passage:
    """A text that the target said token by token; it would rather have said ``favourite`` each time."""
    said = map.target.encode(text)
    logits = torch.zeros(len(said), len(map.draft_of))
    for row, token in enumerate(said):
        logits[row, map.target.encode(favourite)[0] if favourite else token] = 12.0
    ids, lessons = [map.draft.encode("x")[0]], []
    for token in said:
        spelled = map.spell(token)
        lessons.append(Lesson(len(ids), len(ids) + len(spelled), token))
        ids += spelled
    return Passage(ids, lessons, logits)


NOTHING = Judged(torch.empty(0, 0), torch.empty(0))


@pytest.mark.parametrize(("rank", "rate"), [(0, 3e-2), (8, 1e-2)])
def test_the_draft_model_comes_to_say_what_the_target_says(model, folders, rank, rate):
    taught = learner(model, folders, rank, learning_rate=rate)
    lesson = passage(taught._map, "hello there", favourite="q")
    first = float(taught.loss([taught._teach(lesson)]).detach())
    for _ in range(30):
        weights = taught.learn(lesson, NOTHING)
    assert float(taught.loss([taught._teach(lesson)]).detach()) < 0.95 * first
    assert weights is not None
    assert weights.keys() == load_file(folders[1] / "model.safetensors").keys()


def test_low_rank_changes_begin_as_none_and_leave_the_weights_alone(model, folders):
    taught = learner(model, folders, rank=4)
    before = load_file(folders[1] / "model.safetensors")
    assert all(torch.equal(weight, before[name]) for name, weight in taught.network.weights().items())
    taught.learn(passage(taught._map, "abc"), NOTHING)
    moved = {
        name for name, weight in taught.network.weights().items() if not torch.equal(weight, before[name])
    }
    assert moved == {name for name in before if name.endswith("_proj.weight")}
    assert all(torch.equal(weight, before[name]) for name, weight in taught.network._base.items())


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
def test_the_direct_loss_is_a_divergence_with_a_bucket_for_the_rest(model, folders, divergence):
    taught = learner(model, folders, merged_weight=0.0, divergence=divergence)
    lesson = passage(taught._map, "q")
    lesson = Passage(lesson.ids, lesson.lessons, torch.randn(lesson.logits.shape))
    found = float(taught.loss([taught._teach(lesson)]).detach())
    rows, decoder = taught.network.rows(torch.tensor([lesson.ids]))
    q = decoder.logits(rows[0, :1]).softmax(-1)[0].double()
    p = lesson.logits[0].double().softmax(-1)
    shared = [(id, t) for id, t in enumerate(taught._map.target_of.tolist()) if t >= 0]
    pairs = [(float(q[id]), float(p[t])) for id, t in shared]
    pairs.append((1 - sum(q for q, _ in pairs), max(1 - sum(p for _, p in pairs), SMALLEST)))
    assert pairs[-1][0] > 0.05  # the pairs, which the target does not have
    if divergence == "forward":
        pairs = [(p, q) for q, p in pairs]
    assert found == pytest.approx(sum(one * math.log(one / other) for one, other in pairs), rel=1e-3)


def test_a_merged_token_is_learnt_by_its_pieces(model, folders):
    """The target with the pairs, the draft model with single characters: "ab" is two pieces."""
    source = resolve(folders[1])
    pairs = source.tokenizer
    single = made_tokenizer(sorted(pre_tokenizers.ByteLevel.alphabet()), ["<eos>"])
    network = LearningNetwork(source.config, source.weights, rank=4)
    map = ByteMap(single, pairs, source.config.vocab_size, pairs.vocab_size)
    lesson = passage(map, "abq")
    assert [item.stop - item.start for item in lesson.lessons] == [2, 1]

    def pieces(taught: Learner) -> float:
        rows, decoder = taught.network.rows(torch.tensor([lesson.ids]))
        logs = decoder.logits(rows[0, :2]).log_softmax(-1)
        return float(logs[0, lesson.ids[1]] + logs[1, lesson.ids[2]])

    for weight in (0.2, 1.0):
        taught = Learner(network, map, merged_weight=weight)
        direct = Learner(network, map, merged_weight=0.0)
        both = [float(one.loss([one._teach(lesson)]).detach()) for one in (taught, direct)]
        assert both[0] - both[1] == pytest.approx(-weight * pieces(taught) / 2, rel=1e-4)
    # The paper's other weight: how likely the target found the token.
    logits = torch.zeros_like(lesson.logits)
    unsure = Passage(lesson.ids, lesson.lessons, logits)
    weighed = Learner(network, map, merged_weight="target")
    direct = Learner(network, map, merged_weight=0.0)
    both = [float(one.loss([one._teach(unsure)]).detach()) for one in (weighed, direct)]
    assert both[0] - both[1] == pytest.approx(-pieces(weighed) / logits.shape[1] / 2, rel=1e-3)
    before = pieces(taught)
    for _ in range(5):
        taught.learn(lesson, NOTHING)
    assert pieces(taught) > before


def test_the_length_head_learns_which_drafts_are_accepted(model, folders):
    taught = learner(model, folders)
    rows = torch.randn(200, 16, generator=torch.Generator().manual_seed(2))
    judged = Judged(rows, (rows[:, 0] > 0).float())
    assert taught.network.length_head(rows).sigmoid().min() > 0.9  # it stops nothing before it has learnt
    lesson = passage(taught._map, "a")
    for _ in range(60):
        taught.learn(lesson, judged)
    chance = taught.network.length_head(rows).sigmoid()
    assert chance[rows[:, 0] > 0.3].mean() > 0.6
    assert chance[rows[:, 0] < -0.3].mean() < 0.2


def test_a_step_that_leads_nowhere_is_taken_back(model, folders):
    taught = learner(model, folders, learning_rate=float("1e30"))
    lesson = passage(taught._map, "abc")
    before = taught.network.learnt()
    results = [taught.learn(lesson, NOTHING) for _ in range(4)]
    assert None in results
    assert all(tensor.isfinite().all() for tensor in taught.network.learnt().values())
    assert before.keys() == taught.network.learnt().keys()


@pytest.mark.parametrize("options", [{}, {"draw": True}, {"rank": 0}, {"learn": "off"}])
def test_learning_changes_no_output(model, folders, options):
    """At every moment of learning: each text is decoded while the one before it is being learnt from."""
    made = drafter(model, folders, **options)
    made.rounds = 4
    settings = [{"max_new_tokens": 24}, {"max_new_tokens": 24, "temperature": 1.0, "seed": 3}]
    for given in settings:
        plain = [done.tokens for done in model.generate(PROMPTS, **given)]
        drafted = model.generate(PROMPTS, draft=made, policy="fixed", **given)
        assert [done.tokens for done in drafted] == plain
        assert all(done.guarantee.exact for done in drafted)
    assert (made.teaching.steps > 3) == (options.get("learn") != "off")


class Tight(MemoryLedger):
    """Has so many bytes for lessons."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.lessons = most, 0

    def charge(self, owner: str, size: int) -> None:
        if owner == LESSONS and self.held.get(owner, 0) + size > self.most:
            raise MemoryError(owner)
        super().charge(owner, size)
        self.lessons = max(self.lessons, self.held.get(LESSONS, 0))


def test_the_draft_model_that_comes_with_ventris_drafts_for_any_target(model):
    made = build_drafter("omnidraft:memory=none,learn=between", model.workshop)
    plain = model.generate(PROMPTS[0], max_new_tokens=24)
    drafted = model.generate(PROMPTS[0], max_new_tokens=24, draft=made, policy="fixed")
    assert drafted.tokens == plain.tokens
    assert drafted.stats.drafted > 0
    assert made.teaching.steps > 0


def test_what_is_kept_to_be_learnt_is_booked_and_no_more_than_fits(model, folders):
    """Where no more fits it is learnt from at once, and where nothing fits decoding goes on all the same."""
    plain = model.generate(PROMPTS[0], max_new_tokens=40).tokens
    row = 4 * model.target.vocab_size
    found = []
    for rows in (1000, 10, 0):
        made, ledger = drafter(model, folders), Tight(rows * row)
        made.rounds = 1000
        engine = model.engine(max_batch=1, ledger=ledger)
        done = engine.add(model.request(PROMPTS[0], draft=made, policy="fixed", max_new_tokens=40))
        for _ in engine.run():
            pass
        assert done.tokens == plain
        assert ledger.total == 0
        found.append((ledger.lessons // row, made.teaching.steps))
    (whole, once), (part, often), (nothing, never) = found
    # A row for each token but what the last step and the one before the first draft said.
    assert 40 >= whole >= 36 > 10 >= part > 4
    assert often > once == 1
    assert nothing == never == 0


def test_in_the_background_decoding_does_not_wait(model, folders, tmp_path):
    made = drafter(model, folders, learn="background", memory=str(tmp_path))
    plain = model.generate(PROMPTS[0], max_new_tokens=40).tokens
    first = made.model
    assert model.generate(PROMPTS[0], max_new_tokens=40, draft=made, policy="fixed").tokens == plain
    made.teaching.wait()
    assert model.generate(PROMPTS[0], max_new_tokens=40, draft=made, policy="fixed").tokens == plain
    assert made.teaching.steps >= 1
    assert made.model is not first
    made.teaching.wait()
    assert len(list(tmp_path.glob("default/*.safetensors"))) == 1


def test_a_failure_of_learning_stops_learning_and_nothing_else(model, folders, caplog):
    made = drafter(model, folders)
    made.rounds = 2

    def broken(*given):
        raise OSError("no space left on device")

    made.teaching.learner.learn = broken
    plain = model.generate(PROMPTS[0], max_new_tokens=24).tokens
    with caplog.at_level(logging.WARNING, "ventris"):
        assert model.generate(PROMPTS[0], max_new_tokens=24, draft=made, policy="fixed").tokens == plain
    assert "learning from drafts has stopped, drafting goes on: no space left" in caplog.text
    assert made.teaching.learner is None
