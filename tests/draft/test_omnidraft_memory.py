"""What OmniDraft has learnt, on disk: there again next time, bounded, and whole after a process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from two_vocabularies import PROMPTS, drafter

import ventris
from ventris.draft.omnidraft.memory import MEGABYTE, Memory
from ventris.engine.errors import BadInput
from ventris.parts import Workshop, build_drafter


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


LEARNER = """
import sys
import ventris
from ventris.draft.omnidraft.learner import Learner
from ventris.draft.omnidraft.memory import Memory
from ventris.parts import build_drafter
target, draft, memory = sys.argv[1:]
learn, save = Learner.learn, Memory.save
def learn_aloud(self, *given):
    print("learning", flush=True)
    return learn(self, *given)
def save_aloud(self, tensors):
    state = sum(float(t.double().abs().sum()) for t in tensors.values())
    print(state.hex(), flush=True)
    save(self, tensors)
Learner.learn, Memory.save = learn_aloud, save_aloud
model = ventris.load(target, "float32", "torch", "cpu", threads=1)
made = build_drafter({"omnidraft": {"model": draft, "learn": "background", "memory": memory}}, model.workshop)
turn = 0
while True:
    turn += 1
    model.generate(f"say {turn} and {turn % 7}", max_new_tokens=24, draft=made, policy="fixed")
"""


def test_after_a_kill_in_the_middle_of_learning_the_last_good_state_loads(model, folders, tmp_path):
    """A drafter that learns in the background, killed for good while it takes a step."""
    command = [sys.executable, "-c", LEARNER, *map(str, folders), str(tmp_path)]
    for pause in (0.0, 0.005):
        said: list[str] = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            while said.count("learning") < 3:
                said.append(process.stdout.readline().strip())
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            said += process.stdout.read().split()
        (file,) = tmp_path.glob("default/*.safetensors")
        state = sum(float(tensor.double().abs().sum()) for tensor in load_file(file).values()).hex()
        saved = [line for line in said if line != "learning"]
        # The one that was being written may have come in its place, and may not have.
        assert state in saved[-2:]
        again = drafter(model, folders, memory=str(tmp_path))
        assert all(bool(tensor.isfinite().all()) for tensor in learnt(again).values())
        assert len(again.translator.mergers) == len(load_file(file)["mergers.tokens"])


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
    with pytest.raises(BadInput, match="this target has no tokenizer"):
        build_drafter(f'omnidraft:"{folders[1]}"', Workshop(model.target))
    with pytest.raises(BadInput, match="there is no model at"):
        drafter(model, (folders[0], tmp_path / "nowhere"))
