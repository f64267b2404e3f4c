"""Online learning: what is minimised, what is kept, and what survives a process that is killed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers

import ventris
from ventris.draft.omnidraft.byte_map import ByteMap
from ventris.draft.omnidraft.learner import Judged, Learner, Lesson, Passage
from ventris.draft.omnidraft.memory import MEGABYTE, Memory
from ventris.draft.omnidraft.network import LearningNetwork
from ventris.draft.omnidraft.session import LESSONS
from ventris.engine.errors import BadInput
from ventris.engine.ledger import MemoryLedger
from ventris.models.source import resolve
from ventris.parts import Workshop, build_drafter
from ventris.testing.vocabularies import made_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from tiny_model import write_tiny_model
from two_vocabularies import write_draft_model

PROMPTS = [f"say {number} and {number % 7}" for number in range(6)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A target and a draft model with another vocabulary."""
    root = tmp_path_factory.mktemp("pair")
    return write_tiny_model(root / "target"), write_draft_model(root / "draft")


@pytest.fixture(scope="module")
def model(folders) -> ventris.Model:
    return ventris.load(str(folders[0]), "float32", "torch", "cpu", threads=1)


def drafter(model: ventris.Model, folders, **options):
    options = {"model": str(folders[1]), "learn": "between", "memory": "none", **options}
    return build_drafter({"omnidraft": options}, model.workshop)


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
        lessons.append(Lesson(len(ids), len(ids) + len(spelled)))
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


def test_the_direct_loss_is_reverse_kl_with_a_bucket_for_the_rest(model, folders):
    taught = learner(model, folders, merged_weight=0.0)
    lesson = passage(taught._map, "q")
    lesson = Passage(lesson.ids, lesson.lessons, torch.randn(lesson.logits.shape))
    found = float(taught.loss([taught._teach(lesson)]).detach())
    rows, decoder = taught.network.rows(torch.tensor([lesson.ids]))
    q = decoder.logits(rows[0, :1]).softmax(-1)[0].double()
    p = lesson.logits[0].double().softmax(-1)
    shared = [(id, t) for id, t in enumerate(taught._map.target_of.tolist()) if t >= 0]
    expected = sum(float(q[id] * (q[id] / p[t]).log()) for id, t in shared)
    rest_q, rest_p = 1 - sum(float(q[id]) for id, _ in shared), 1 - sum(float(p[t]) for _, t in shared)
    assert rest_q > 0.05  # the pairs, which the target does not have
    assert found == pytest.approx(expected + rest_q * float(torch.tensor(rest_q / rest_p).log()), rel=1e-3)


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


def learnt(made) -> dict[str, torch.Tensor]:
    return {**made.teaching._network.learnt(), **made.translator.mergers.tensors()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(t, other[name]) for name, t in one.items())


def test_what_was_learnt_is_there_again_for_this_user_and_this_target_alone(model, folders, tmp_path):
    made = drafter(model, folders, memory=str(tmp_path))
    untouched = learnt(made)
    model.generate(PROMPTS, max_new_tokens=24, draft=made, policy="fixed")
    kept = learnt(made)
    assert not same(kept, untouched)
    # Another user, another target and another form of learning begin anew.
    assert same(learnt(drafter(model, folders, memory=str(tmp_path), user="else")), untouched)
    other = ventris.load(str(folders[1]), "float32", "torch", "cpu", threads=1)
    elsewhere = drafter(other, folders, memory=str(tmp_path))
    assert same(learnt(elsewhere), untouched)
    other.generate(PROMPTS, max_new_tokens=8, draft=elsewhere, policy="fixed")
    assert drafter(model, folders, memory=str(tmp_path), rank=2).teaching.steps == 0
    # Back at the first target everything is as it was left, though the other was learnt meanwhile.
    assert same(learnt(drafter(model, folders, memory=str(tmp_path))), kept)


WRITER = """
import sys, torch
from pathlib import Path
from ventris.draft.omnidraft.memory import Memory
memory = Memory(Path(sys.argv[1]), "key", 64)
turn = 0
while True:
    turn += 1
    memory.save({"turn": torch.full((200_000,), turn, dtype=torch.int32)})
    print(turn, flush=True)
"""


def test_after_a_kill_in_the_middle_of_a_save_the_last_good_state_loads(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
        said = [int(line) for line in writer.stdout.read().split()]
    found = Memory(tmp_path, "key", 64).load()
    assert found is not None
    (turn,) = set(found["turn"].tolist())
    assert turn >= max(said, default=1)


def test_a_kill_in_the_middle_of_an_update_leaves_the_state_before_it(model, folders, tmp_path, monkeypatch):
    made = drafter(model, folders, memory=str(tmp_path))
    model.generate(PROMPTS[:2], max_new_tokens=24, draft=made, policy="fixed")
    kept = learnt(made)
    # The process ends while the bytes are written: a part of the new file is there, and never put in place.
    (file,) = tmp_path.glob("default/*.safetensors")
    content = file.read_bytes()
    (file.parent / f".{file.name}.0123").write_bytes(content[: len(content) // 2])
    assert same(learnt(drafter(model, folders, memory=str(tmp_path))), kept)
    # What is left of it is removed once nobody can be writing it any more.
    os.utime(file.parent / f".{file.name}.0123", (0, 0))
    drafter(model, folders, memory=str(tmp_path))
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_users_memory_is_bounded_and_the_least_used_target_goes_first(tmp_path):
    content = {"weights": torch.zeros(MEGABYTE // 8)}  # half a megabyte
    for turn, key in enumerate("abcde"):
        memory = Memory(tmp_path, key, 1.6)
        memory.save(content)
        os.utime(memory.path, (turn + 1, turn + 1))
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 1.6 * MEGABYTE
    assert sorted(file.name[0] for file in tmp_path.iterdir()) == ["c", "d", "e"]
    assert Memory(tmp_path, "c", 1.6).load() is not None  # it is in use again
    Memory(tmp_path, "f", 1.6).save(content)
    assert sorted(file.name[0] for file in tmp_path.iterdir()) == ["c", "e", "f"]
    assert Memory(tmp_path, "a", 1.6).load() is None


def test_refusals_say_what_to_do(model, folders, tmp_path):
    with pytest.raises(BadInput, match=r"may take 2.0 MB, more than the 1 MB .*raise disk, or lower rank"):
        drafter(model, folders, memory=str(tmp_path), disk=1)
    made = drafter(model, folders, memory=str(tmp_path))
    model.generate(PROMPTS[0], max_new_tokens=24, draft=made, policy="fixed")
    (file,) = tmp_path.glob("default/*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BadInput, match=r"is damaged .*; remove it to begin anew"):
        drafter(model, folders, memory=str(tmp_path))
    save_file({"other": torch.zeros(3)}, file)
    with pytest.raises(BadInput, match=r"does not fit: .*; remove it to begin anew"):
        drafter(model, folders, memory=str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot keep what is learnt in .*; give another memory"):
        drafter(model, folders, memory=str(tmp_path / "file"))
    with pytest.raises(BadInput, match="option 'user'"):
        drafter(model, folders, user="../elsewhere")
    with pytest.raises(BadInput, match="option 'model'"):
        build_drafter("omnidraft:depth=3", model.workshop)
    with pytest.raises(BadInput, match="this target has no tokenizer"):
        build_drafter(f'omnidraft:"{folders[1]}"', Workshop(model.target))
    with pytest.raises(BadInput, match="there is no model at"):
        drafter(model, (folders[0], tmp_path / "nowhere"))
