"""Texts, hidden states and windows: resumable, shared, and in an order that the seed decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ventris
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows
from ventris.train import texts as train_texts
from ventris.train.hidden_states import HiddenStates, hidden_rows
from ventris.train.recorder import from_bits, to_bits
from ventris.train.settings import TextSettings
from ventris.train.texts import PromptRecord, TextShard, distil_texts, read_prompts
from ventris.train.windows import Windows, open_texts, split

SETTINGS = TextSettings(temperatures=(0.0, 0.8), max_new_tokens=12)


@pytest.fixture(autouse=True, scope="module")
def small_shards():
    """Several files from few prompts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_texts, "SHARD", 64)
        yield


@pytest.fixture(scope="module")
def model(tiny_folder):
    return ventris.load(str(tiny_folder), "float32", "torch", "cpu")


@pytest.fixture(scope="module")
def records(prompts):
    return read_prompts(prompts) * 2


def test_answers_are_the_models_own(model, records, tmp_path):
    (first, *_) = distil_texts(model, records, tmp_path, SETTINGS)
    shard = TextShard.load(first)
    whole = shard.tokens[shard.starts[0] : shard.starts[1]].tolist()
    said = shard.answer[shard.starts[0] : shard.starts[1]].tolist()
    expected = model.generate(records[0].content, max_new_tokens=12)
    assert whole == [*expected.prompt, *expected.tokens]
    assert said == [False] * len(expected.prompt) + [True] * len(expected.tokens)
    assert set(shard.temperature[~np.isnan(shard.temperature)].tolist()) == {0.0, np.float32(0.8)}


def test_a_given_text_is_learnt_whole(model, tmp_path):
    (path,) = distil_texts(model, [PromptRecord("abc abc", False)], tmp_path, SETTINGS)
    shard = TextShard.load(path)
    assert shard.tokens.tolist() == model.tokenizer.encode("abc abc")
    assert shard.answer.all()


def test_what_the_context_has_no_room_for_is_left_out(tiny_folder, tmp_path):
    model = ventris.load(str(tiny_folder), "float32", "torch", "cpu", context_length=128)
    long = "far too long a prompt " * 20
    records = [
        PromptRecord(long, True, "a word"),
        PromptRecord("short", True, "a word " * 60),
        PromptRecord(long, True),
        PromptRecord(long, False),
    ]
    (path,) = distil_texts(model, records, tmp_path, SETTINGS)
    shard = TextShard.load(path)
    assert shard.prompt.tolist() == [1, 3]
    assert np.diff(shard.starts).tolist() == [128, 128]
    HiddenStates.beneath(tmp_path, [2], {}).complete(model.target, [path])


def test_what_is_there_is_kept_and_what_is_missing_is_made(model, records, tmp_path):
    files = distil_texts(model, records, tmp_path / "a", SETTINGS)
    assert len(files) == 2
    again = distil_texts(model, records, tmp_path / "b", SETTINGS, batch=3)
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in again]
    before = files[0].stat().st_mtime_ns
    files[1].unlink()
    distil_texts(model, records, tmp_path / "a", SETTINGS)
    assert files[0].stat().st_mtime_ns == before
    assert files[1].read_bytes() == again[1].read_bytes()


def test_a_folder_of_another_run_is_refused(model, records, tmp_path):
    distil_texts(model, records[:3], tmp_path, SETTINGS)
    with pytest.raises(BadInput, match="belongs to a run with prompts"):
        distil_texts(model, records[:4], tmp_path, SETTINGS)


def test_bad_data_is_told_by_its_line(tmp_path):
    path = tmp_path / "data.jsonl"
    for content, message in (
        ('{"prompt": "x"}\n{"other": 1}\n', "line 2 has neither"),
        ("not json\n", "line 1 is no JSON"),
        ("\n", "holds no prompts"),
    ):
        path.write_text(content)
        with pytest.raises(BadInput, match=message):
            read_prompts(path)
    with pytest.raises(BadInput, match="cannot read"):
        read_prompts(tmp_path / "missing")


def test_hidden_rows_are_those_of_one_forward(model):
    tokens = model.tokenizer.encode("some text that is read in one go " * 12)
    target = model.target
    rows = hidden_rows(target, tokens, [1, target.num_layers])
    cache = target.new_cache()
    whole = target.forward([Rows(cache, tokens, range(-1, len(tokens) - 1))], [1, target.num_layers])
    torch.testing.assert_close(rows[:, 0], whole.hidden[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows[:, 1], whole.hidden[target.num_layers], atol=1e-5, rtol=1e-5)
    assert torch.equal(from_bits(to_bits(rows)), rows.bfloat16().float())


def test_hidden_states_are_cached_by_taps_and_resumed(model, records, tmp_path):
    texts = distil_texts(model, records, tmp_path, SETTINGS)
    states = HiddenStates.beneath(tmp_path, [2], {"target": "x"})
    files = states.complete(model.target, texts)
    stamp = files[0].stat().st_mtime_ns
    content = files[1].read_bytes()
    files[1].unlink()
    again = HiddenStates.beneath(tmp_path, [2], {"target": "x"}).complete(model.target, texts)
    assert again == files
    assert files[0].stat().st_mtime_ns == stamp
    assert files[1].read_bytes() == content
    other = HiddenStates.beneath(tmp_path, [0, 2], {"target": "x"})
    assert other.folder != states.folder
    assert np.load(other.complete(model.target, texts)[0]).shape[1:] == (2, model.target.hidden_size)


def test_answers_bring_the_rows_that_reading_them_again_gives(model, records, tmp_path):
    asked = [record for record in records if record.answered]
    kept = HiddenStates.beneath(tmp_path / "a", [1, 2], {})
    files = distil_texts(model, asked, tmp_path / "a", SETTINGS, taps=kept.taps, keep_rows=kept.keep)
    stamps = [kept.file(path).stat().st_mtime_ns for path in files]
    read = HiddenStates.beneath(tmp_path / "b", [1, 2], {}).complete(model.target, files)
    assert [path.stat().st_mtime_ns for path in kept.complete(model.target, files)] == stamps
    for path, again in zip(files, read, strict=True):
        one, other = from_bits(np.load(kept.file(path))), from_bits(np.load(again))
        torch.testing.assert_close(one, other, atol=1e-2, rtol=1e-2)
        ends = TextShard.load(path).starts[1:] - 1
        assert not one[ends].any()
        assert one[ends - 1].any(dim=-1).all()


def test_a_file_with_given_texts_is_read_afterwards(model, records, tmp_path):
    kept = HiddenStates.beneath(tmp_path, [2], {})
    mixed = distil_texts(model, records[-6:], tmp_path, SETTINGS, taps=kept.taps, keep_rows=kept.keep)
    assert not kept.file(mixed[0]).exists()
    assert len(np.load(kept.complete(model.target, mixed)[0])) == len(TextShard.load(mixed[0]).tokens)


@pytest.fixture(scope="module")
def texts(model, records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    files = distil_texts(model, records, folder, SETTINGS)
    return open_texts(files, HiddenStates.beneath(folder, [2], {}).complete(model.target, files))


def test_a_batch_depends_on_seed_and_number_alone(texts):
    one, other = Windows(texts, [2], 16, 4, seed=3), Windows(texts, [2], 16, 4, seed=3)
    other.batch(40)
    for number in (0, 17, 40):
        first, second = one.batch(number), other.batch(number)
        assert torch.equal(first.tokens, second.tokens)
        assert torch.equal(first.hidden[2], second.hidden[2])
    assert not torch.equal(one.batch(0).tokens, Windows(texts, [2], 16, 4, seed=4).batch(0).tokens)


def test_an_epoch_sees_every_text_once(texts):
    windows = Windows(texts, [2], 10_000, 1, seed=0)
    for epoch in range(2):
        seen = sorted(windows.batch(epoch * len(texts) + i).tokens[0].tolist() for i in range(len(texts)))
        assert seen == sorted(text.tokens.tolist() for text in texts)


def test_rows_belong_to_their_tokens(texts, model):
    batch = Windows(texts, [2], 16, 5, seed=1).batch(2)
    for row in range(5):
        window = batch.tokens[row].tolist()
        text = next(t for t in texts if str(window[:9])[1:-1] in str(t.tokens.tolist()))
        start = next(i for i in range(len(text.tokens)) if text.tokens[i : i + 9].tolist() == window[:9])
        assert torch.equal(batch.hidden[2][row, :9], from_bits(text.rows[start : start + 9, 0]))


def test_answers_to_one_prompt_stay_on_one_side(texts):
    learnt, held = split(texts, 0.2, seed=0)
    assert not {t.prompt for t in learnt} & {t.prompt for t in held}
    assert {t.temperature for t in held} == {0.0}
    assert split(texts, 0.2, seed=0)[1][0].prompt == held[0].prompt
