"""The Python surface on a toy: batches, streams, chat history, scores, traces."""

from __future__ import annotations

import math

import pytest
import torch

import ventris
from ventris.engine.errors import BadInput, VentrisError
from ventris.engine.request import PromptPart
from ventris.model import Model
from ventris.prompts import Prompt
from ventris.testing.guides import Forbid, NoRepeatedPairs
from ventris.testing.toy import ToyTarget

TARGET = ToyTarget(vocab_size=12, memory=2, sharpness=5.0)


class Letters:
    """A tokenizer of one letter a token; ``l`` ends an answer."""

    vocab_size = 12
    bos_id = None
    eos_ids = (11,)
    special_ids = frozenset([11])
    has_chat_template = True
    fingerprint = "letters"
    vocabulary_bytes = tuple(bytes([97 + n]) for n in range(12))

    class _spelling:
        leading_space = False

    def encode(self, text: str, special: bool = False) -> list[int]:
        return [ord(letter) - 97 for letter in text if "a" <= letter <= "l"]

    def decode(self, ids, special: bool = False) -> str:
        return "".join(chr(97 + token) for token in ids if token != 11)

    def chat(self, messages, add_generation_prompt=True, tools=None) -> list[int]:
        return [token for message in messages for token in [*self.encode(message["content"]), 11]]


@pytest.fixture
def model() -> Model:
    return Model(TARGET, Letters())


def test_text_ids_messages_and_parts(model: Model) -> None:
    by_text = model.generate("abc", max_new_tokens=10, raw=True, ignore_eos=True)
    by_ids = model.generate([0, 1, 2], max_new_tokens=10, ignore_eos=True)
    by_parts = model.generate([PromptPart([0, 1]), PromptPart([2])], max_new_tokens=10, ignore_eos=True)
    assert by_text.tokens == by_ids.tokens == by_parts.tokens
    assert by_text.text == Letters().decode(by_text.tokens)
    chat = model.generate("abc", max_new_tokens=10, ignore_eos=True)
    messages = model.generate([{"role": "user", "content": "abc"}], max_new_tokens=10, ignore_eos=True)
    assert chat.tokens == messages.tokens
    assert list(chat.prompt) == [0, 1, 2, 11]


def test_embedded_prompt_rows_stand_for_their_tokens(model: Model) -> None:
    rows = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    parts = [PromptPart([0]), PromptPart(embeddings=rows, label="image"), PromptPart([3])]
    by_rows = model.generate(parts, max_new_tokens=12, ignore_eos=True, draft="ngram", policy="fixed")
    by_ids = model.generate([0, 1, 2, 3], max_new_tokens=12, ignore_eos=True)
    assert by_rows.tokens == by_ids.tokens
    assert model.request(parts).spans == {"image": [(1, 3)]}


def test_a_batch_gives_what_each_gives_alone(model: Model) -> None:
    prompts = [
        "abc",
        [3, 4, 5],
        Prompt("abab", {"temperature": 1.0, "seed": 3, "draft": "ngram"}),
        Prompt("hgf", {"max_new_tokens": 3, "guides": [NoRepeatedPairs()]}),
    ]
    together = model.generate(prompts, max_new_tokens=20, ignore_eos=True, max_batch=3)
    alone = [model.generate(prompt, max_new_tokens=20, ignore_eos=True) for prompt in prompts]
    assert [c.tokens for c in together] == [c.tokens for c in alone]


def test_streamed_pieces_make_up_the_text(model: Model) -> None:
    pieces = list(model.stream("abc", max_new_tokens=30, ignore_eos=True, draft="ngram", policy="fixed"))
    final = pieces[-1].completion
    assert pieces[-1].finished
    assert "".join(piece.text for piece in pieces) == final.text
    assert [token for piece in pieces for token in piece.tokens] == final.tokens
    sources = [source for piece in pieces for source in piece.sources]
    assert len(sources) == len(final.tokens)
    assert set(sources) == {"target", "ngram"}


def test_stop_strings_cut_inside_an_accepted_path(model: Model) -> None:
    whole = model.generate("abc", max_new_tokens=40, ignore_eos=True).text
    for length in (1, 2, 3):
        for start in range(5, 20, 4):
            stop = whole[start : start + length]
            for draft in (None, "ngram"):
                cut = model.generate("abc", max_new_tokens=40, ignore_eos=True, stop=[stop], draft=draft)
                assert cut.text == whole[: whole.index(stop)]
                assert cut.finish_reason == "stop"


def test_chat_keeps_its_history_in_the_cache(model: Model) -> None:
    chat = model.chat(max_new_tokens=8, ignore_eos=True, system="ab")
    first = chat.say("cdef")
    second = chat.say("gh")
    assert [m["role"] for m in chat.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert second.stats.reused_tokens >= len(first.prompt)
    fresh = model.generate(chat.messages[:-1], max_new_tokens=8, ignore_eos=True)
    assert second.tokens == fresh.tokens
    chat.reset()
    assert chat.messages == [{"role": "system", "content": "ab"}]


def test_a_broken_off_answer_stays_in_the_history_as_far_as_it_came(model: Model) -> None:
    chat = model.chat(max_new_tokens=50, ignore_eos=True)
    answer = chat.stream("abc")
    for _ in range(5):
        piece = next(answer)
    answer.close()
    assert chat.messages[-1]["content"] == piece.completion.text
    assert piece.completion.finish_reason == "cancelled"
    assert chat.say("de").finish_reason == "length"


def test_saying_something_ends_an_answer_that_is_still_open(model: Model) -> None:
    chat = model.chat(max_new_tokens=8, ignore_eos=True)
    expected = model.chat(max_new_tokens=8, ignore_eos=True).say("de")
    never_read, half_read = chat.stream("abc"), chat.stream("fgh")
    next(half_read)
    chat.reset()
    assert chat.say("de").tokens == expected.tokens
    history = list(chat.messages)
    assert [len(list(answer)) for answer in (never_read, half_read)] == [0, 0]
    assert chat.messages == history


def test_scores_go_through_the_guides(model: Model) -> None:
    scores = model.score([1, 2], [3, 4])
    expected = [
        float(TARGET.logits([1, 2]).log_softmax(-1)[3]),
        float(TARGET.logits([1, 2, 3]).log_softmax(-1)[4]),
    ]
    assert scores == pytest.approx(expected)
    row = TARGET.logits([1, 2]).clone()
    row[5] = -math.inf
    assert model.score([1, 2], [3], guides=[Forbid([5])])[0] == pytest.approx(float(row.log_softmax(-1)[3]))


def test_log_probabilities_belong_to_their_tokens(model: Model) -> None:
    for settings in ({}, {"draft": "ngram", "policy": "fixed"}):
        completion = model.generate([1, 2], max_new_tokens=20, ignore_eos=True, logprobs=3, **settings)
        assert [entry.token for entry in completion.logprobs] == completion.tokens
        text = [1, 2]
        for entry in completion.logprobs:
            law = TARGET.logits(text).log_softmax(-1)
            assert entry.logprob == pytest.approx(float(law[entry.token]))
            assert [token for token, _ in entry.top] == law.topk(3).indices.tolist()
            text.append(entry.token)


def test_traces_tell_every_token(model: Model) -> None:
    completion = model.generate(
        [1, 2, 1, 2], max_new_tokens=40, ignore_eos=True, draft="ngram", policy="fixed", trace=True,
        guides=[NoRepeatedPairs()],
    )  # fmt: skip
    steps = completion.trace.steps
    visits = [visit for step in steps for visit in step.visits]
    assert [visit.token for visit in visits] == completion.tokens
    assert len(steps) == completion.stats.steps
    assert any(visit.guided is not None for visit in visits)
    text = [1, 2, 1, 2]
    for visit in visits:
        law = TARGET.logits(text).log_softmax(-1)
        assert visit.candidates[0][0] == int(law.argmax())
        assert visit.candidates[0][1] == pytest.approx(float(law.max()))
        text.append(visit.token)
    for step in steps:
        assert set(step.seconds) == {"draft", "target", "guide", "verify", "other"}
        assert step.path[0] == 0


def test_a_failing_single_prompt_raises_and_a_batch_reports(model: Model) -> None:
    with pytest.raises(VentrisError, match="'forbid' allows no token"):
        model.generate("abc", guides=[Forbid(range(12))])
    failed, fine = model.generate(
        [Prompt("abc", {"guides": [Forbid(range(12))]}), "abc"], max_new_tokens=4, ignore_eos=True
    )
    assert failed.finish_reason == "error"
    assert len(fine.tokens) == 4


def test_nan_logits_are_an_error_not_a_token() -> None:
    class Broken(ToyTarget):
        def logits(self, prefix):
            row = super().logits(prefix).clone()
            row[3] = math.nan
            return row

    with pytest.raises(VentrisError, match="NaN"):
        Model(Broken(12)).generate([1, 2], max_new_tokens=3)


def test_guarantees_say_what_holds(model: Model) -> None:
    exact = model.generate("ab", max_new_tokens=2, draft="ngram").guarantee
    assert exact.exact
    assert "same tokens as greedy" in exact.statement
    seeded = model.generate("ab", max_new_tokens=2, temperature=1.0, draft="ngram").guarantee
    assert "for this seed" in seeded.statement
    loose = model.generate("ab", max_new_tokens=2, draft="ngram", verifier="synthetic").guarantee
    assert not loose.exact
    assert "synthetic" in loose.statement


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "empty"),
        ([], "empty"),
        ([object()], "a prompt is"),
        (7, "a prompt is"),
        ([99], "outside the vocabulary"),
        ([-1], "outside the vocabulary"),
        (b"\x01\x02", "the prompt is bytes; decode it"),
        ({"role": "user", "content": "abc"}, "a chat message alone is no prompt"),
        ((text for text in ["abc", "abc"]), "a prompt is"),
    ],
)
def test_bad_prompts_are_named(model: Model, prompt: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        model.generate(prompt, raw=True)


def test_a_minimum_above_the_limit_is_refused(model: Model) -> None:
    with pytest.raises(BadInput, match="min_new_tokens is 9 and max_new_tokens only 8"):
        model.generate("abc", min_new_tokens=9, max_new_tokens=8)
    assert len(model.generate("abc", min_new_tokens=8, max_new_tokens=8).tokens) == 8


def test_a_continuation_that_is_none_is_named(model: Model) -> None:
    for continuation in ([99], [-1], ["a"], [1.5]):
        with pytest.raises(BadInput, match="continuation"):
            model.score("abc", continuation)
    with pytest.raises(BadInput, match="the prompt is empty"):
        model.score("", "abc")
    with pytest.raises(BadInput, match="the prompt holds 99"):
        model.score([99], "abc")


def test_the_package_offers_its_names_lazily() -> None:
    assert ventris.load is ventris.model.load
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        ventris.lode  # noqa: B018
