"""hf_generate under transformers' own generate: the same tokens, criteria, processors and outputs."""

from __future__ import annotations

import functools
import gc
import weakref
from collections import Counter
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
import transformers as hf
from transformers.generation import (
    LogitsProcessor,
    MaxLengthCriteria,
    StoppingCriteria,
    TemperatureLogitsWarper,
)

import ventris
from ventris.engine.errors import BadInput, Incompatible
from ventris.engine.sampling import Sampling, distribution
from ventris.hf import _known, wrap
from ventris.testing.guides import Forbid, NoRepeatedPairs

SMALL = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}

MODELS = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, intermediate_size=48)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=48,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=128,
            bos_token_id=1,
            eos_token_id=None,
            pad_token_id=0,
        )
    ),
    "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32)),
}

PROMPTS = [[5, 6, 7, 5, 6, 7, 5], [9, 8, 3], [11, 12, 13, 14, 15, 11, 12, 13, 4, 11, 12], [20]]
COUNT = 40


def build(name: str, seed: int = 0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[name]().eval()
        for parameter in model.parameters():
            parameter.data.normal_(std=0.2)
    return model


@functools.cache
def tiny(name: str):
    return build(name)


@functools.cache
def similar(name: str):
    """A draft model that often agrees with the tiny one."""
    model = deepcopy(build(name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def padded(prompts: list[list[int]] = PROMPTS) -> dict[str, torch.Tensor]:
    """Input ids and attention mask, padded on the left."""
    width = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[0] * (width - len(p)) + p for p in prompts]),
        "attention_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
    }


def ours(name: str, inputs: dict, **settings):
    settings = {"max_new_tokens": COUNT, "policy": "fixed", **settings}
    return tiny(name).generate(**inputs, custom_generate=ventris.hf_generate, **settings)


def theirs(name: str, inputs: dict, **settings):
    return tiny(name).generate(**inputs, **{"max_new_tokens": COUNT, "do_sample": False, **settings})


ONE = padded(PROMPTS[:1])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("inputs", [ONE, padded()], ids=["one", "batch"])
@pytest.mark.parametrize("drafter", ["none", "ngram", "model", "both"])
def test_greedy_tokens_are_those_of_transformers(name, inputs, drafter):
    draft = {
        "none": {},
        "ngram": {"draft": "ngram"},
        "model": {"draft_model": similar(name)},
        "both": {"draft": "ngram:min_match=3", "draft_model": similar(name)},
    }[drafter]
    assert torch.equal(ours(name, inputs, **draft), theirs(name, inputs))


def test_the_default_policy_needs_no_setting():
    assert torch.equal(ours("llama", padded(), draft="ngram", policy=None), theirs("llama", padded()))


def test_an_assistant_model_is_the_draft_model():
    assistant, calls = build("llama", 3), []
    assistant.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(ours("llama", ONE, assistant_model=assistant), theirs("llama", ONE))
    assert len(calls) > 20


BUILT_IN = [
    {"repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 2},
    {"min_new_tokens": 8, "eos_token_id": [30, 7, 40]},
    {"bad_words_ids": [[22], [32, 32]], "sequence_bias": {(9, 3): 4.0}},
    {"forced_eos_token_id": 3, "eos_token_id": 3},
    {"exponential_decay_length_penalty": (3, 1.2), "eos_token_id": 2},
    {"suppress_tokens": [32], "begin_suppress_tokens": [22]},
    {"guidance_scale": 1.5},
    {"prefix_allowed_tokens_fn": lambda row, ids: [(int(ids[-1]) + k) % 48 for k in range(1, 9 + row)]},
]


@pytest.mark.parametrize("settings", BUILT_IN, ids=lambda s: next(iter(s)))
@pytest.mark.parametrize("inputs", [ONE, padded()], ids=["one", "batch"])
def test_transformers_processors_work_under_drafting(settings, inputs):
    expected = theirs("llama", inputs, **settings)
    assert not torch.equal(expected, theirs("llama", inputs)) or "eos_token_id" in settings
    assert torch.equal(ours("llama", inputs, draft="ngram", **settings), expected)


class Alternating(LogitsProcessor):
    """Remembers what it was asked: every second call it forbids the even tokens."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, input_ids, scores):
        self.asked.append(input_ids[0].tolist())
        if len(self.asked) % 2:
            scores[:, ::2] = -torch.inf
        return scores


@pytest.mark.parametrize("draft", [{"draft": "ngram"}, {"draft_model": "similar"}])
def test_a_processor_with_a_memory_is_asked_at_kept_prefixes_only(draft):
    if "draft_model" in draft:
        draft = {"draft_model": similar("llama")}
    plain, drafted = Alternating(), Alternating()
    expected = theirs("llama", ONE, logits_processor=[plain])
    assert torch.equal(ours("llama", ONE, logits_processor=[drafted], **draft), expected)
    assert drafted.asked == plain.asked


def test_every_row_of_a_batch_has_its_own_memory():
    expected = [theirs("llama", padded([p]), logits_processor=[Alternating()])[0, len(p) :] for p in PROMPTS]
    shared = Alternating()
    result = ours("llama", padded(), draft="ngram", logits_processor=[shared])
    for row, tokens in zip(result, expected, strict=True):
        assert row[-COUNT:].tolist() == tokens.tolist()
    assert shared.asked == []


class ByRow(LogitsProcessor):
    """Has a favourite token for each row."""

    def __call__(self, input_ids, scores):
        scores[torch.arange(len(scores)), torch.arange(len(scores)) * 3] += 6.0
        return scores


def test_processors_may_go_by_the_number_of_the_row():
    expected = theirs("gpt2", padded(), logits_processor=[ByRow()])
    assert torch.equal(ours("gpt2", padded(), draft="ngram", logits_processor=[ByRow()]), expected)


class Nth(StoppingCriteria):
    """Fires at the n-th token of a kind, counted as they come."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.seen: list[list[int]] = []

    def __call__(self, input_ids, scores, **kwargs):
        self.seen.append(input_ids[0].tolist())
        return torch.tensor([len(self.seen) >= self.n] * len(input_ids))


@pytest.mark.parametrize("n", range(1, 12))
def test_criteria_see_every_kept_token_and_cut(n):
    plain, drafted = Nth(n), Nth(n)
    processor, other = Alternating(), Alternating()
    expected = theirs("llama", ONE, stopping_criteria=[plain], logits_processor=[processor])
    result = ours(
        "llama",
        ONE,
        draft_model=tiny("llama"),
        verifier="greedy",
        stopping_criteria=[drafted],
        logits_processor=[other],
    )
    assert torch.equal(result, expected)
    assert drafted.seen == plain.seen
    assert other.asked == processor.asked
    assert result.shape[1] == len(PROMPTS[0]) + n


def test_what_a_step_does_after_the_end_of_a_row_is_nobodys_business():
    class NoMore:
        """Forbids everything after five tokens."""

        name, masks = "no-more", True

        def start(self, request):
            self.count = 0
            return self

        def adjust(self, logits, view):
            return logits if self.count < 5 else logits - torch.inf

        def advance(self, token):
            self.count += 1

    settings = {"draft_model": tiny("llama"), "guides": NoMore()}
    result = ours("llama", ONE, stopping_criteria=[Nth(5)], **settings)
    assert torch.equal(result, theirs("llama", ONE, max_new_tokens=5))
    with pytest.raises(ventris.VentrisError, match="no-more"):
        ours("llama", ONE, stopping_criteria=[Nth(6)], **settings)


class EndsWith(StoppingCriteria):
    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens

    def __call__(self, input_ids, scores, **kwargs):
        return torch.isin(input_ids[:, -1], torch.tensor(self.tokens))


def test_rows_that_end_early_are_padded():
    free = theirs("llama", padded())[:, -COUNT:]
    ends = [int(free[0, 4]), int(free[1, 9])]
    for settings in ({"eos_token_id": ends}, {"stopping_criteria": [EndsWith(ends)]}):
        result = ours("llama", padded(), draft="ngram", **settings)[:, -COUNT:]
        lengths = []
        for row, all_tokens in zip(result.tolist(), free.tolist(), strict=True):
            length = next((i + 1 for i, t in enumerate(all_tokens) if t in ends), COUNT)
            assert row == (all_tokens[:length] + [0] * COUNT)[: len(row)]
            lengths.append(length)
        assert min(lengths) < max(lengths) == result.shape[1]
    expected = theirs("llama", padded(), eos_token_id=ends)
    assert torch.equal(ours("llama", padded(), draft="ngram", eos_token_id=ends), expected)


def test_max_length_counts_the_prompt_and_a_given_criterion_wins():
    assert ours("llama", padded(), max_new_tokens=None, max_length=20).shape == (4, 20)
    assert ours("llama", ONE, stopping_criteria=[MaxLengthCriteria(9)]).shape == (1, 9)


class Listening(hf.generation.BaseStreamer):
    def __init__(self) -> None:
        self.heard: list[int] = []
        self.ended = 0

    def put(self, value):
        self.heard += value.flatten().tolist()

    def end(self):
        self.ended += 1


def test_a_streamer_hears_every_token_once():
    streamer = Listening()
    result = ours("llama", ONE, draft="ngram", streamer=streamer, stopping_criteria=[Nth(7)])
    assert streamer.heard == result[0].tolist()
    assert streamer.ended == 1


def test_scores_and_logits_are_those_of_transformers():
    settings = {
        "return_dict_in_generate": True,
        "output_scores": True,
        "output_logits": True,
        "repetition_penalty": 1.2,
    }
    expected = theirs("llama", padded(), **settings)
    result = ours("llama", padded(), draft="ngram", **settings)
    assert torch.equal(result.sequences, expected.sequences)
    for kind in ("scores", "logits"):
        assert len(result[kind]) == COUNT
        for mine, other in zip(result[kind], expected[kind], strict=True):
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
    assert ours("llama", ONE, return_dict_in_generate=True).scores is None


def test_scores_after_a_rows_end_are_certain_of_the_padding():
    free = theirs("llama", padded())[:, -COUNT:]
    result = ours(
        "llama",
        padded(),
        return_dict_in_generate=True,
        output_scores=True,
        eos_token_id=int(free[1, 3]),
        draft="ngram",
    )
    transition = tiny("llama").compute_transition_scores(
        result.sequences, result.scores, normalize_logits=True
    )
    assert transition[1, 4:].tolist() == [0.0] * (transition.shape[1] - 4)


SAMPLED = {"do_sample": True, "top_k": 0, "temperature": 0.9, "max_new_tokens": 2}


def two_token_law(name: str, prompt: list[int], **settings) -> dict[tuple[int, int], float]:
    """The law of two tokens by transformers' definition, from the model's plain logits."""
    model = tiny(name)
    sampling = Sampling(**settings)

    def probs(tokens: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return distribution(model(torch.tensor([tokens])).logits[0, -1].numpy(), sampling)

    first = probs(prompt)
    law = {}
    for token in torch.nonzero(first).flatten().tolist():
        second = probs([*prompt, token])
        law |= {(token, t): float(first[token] * second[t]) for t in torch.nonzero(second).flatten().tolist()}
    return law


@pytest.mark.parametrize(
    "settings",
    [
        {"draft": "ngram"},
        {"draft_model": "similar"},
        {"draft_model": "similar", "verifier": "block"},
        {"draft": "ngram", "verifier": "point-mass"},
    ],
    ids=str,
)
def test_samples_follow_the_warped_law(settings):
    if "draft_model" in settings:
        settings = {**settings, "draft_model": similar("llama")}
    law = two_token_law("llama", PROMPTS[0], temperature=0.5, top_k=5, top_p=0.9)
    count = 300
    result = ours(
        "llama",
        ONE,
        **{**SAMPLED, "temperature": 0.5, "top_k": 5, "top_p": 0.9, "max_new_tokens": 2},
        **settings,
        num_return_sequences=count,
        seed=3,
    )
    seen = Counter(map(tuple, result[:, -2:].tolist()))
    assert set(seen) <= set(law)
    chi_square = sum((seen[pair] - count * p) ** 2 / (count * p) for pair, p in law.items())
    # Mean is the degrees of freedom; five standard deviations away is no chance.
    freedom = len(law) - 1
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


def test_seeds():
    settings = {**SAMPLED, "max_new_tokens": 20, "draft": "ngram"}
    torch.manual_seed(1)
    first, second = ours("llama", padded(), **settings), ours("llama", padded(), **settings)
    torch.manual_seed(1)
    assert torch.equal(first, ours("llama", padded(), **settings))
    assert not torch.equal(first, second)
    given = ours("llama", padded(), **settings, seed=7)
    assert torch.equal(given, ours("llama", padded(), **settings, seed=7))
    assert torch.equal(given, ours("llama", padded(), **{**settings, "draft": None}, seed=7))
    alone = ours("llama", padded(PROMPTS[1:2]), **settings, seed=8)
    assert torch.equal(alone[0, -20:], given[1, -20:])
    copies = ours("llama", ONE, **settings, num_return_sequences=3, seed=7)
    assert len({tuple(row) for row in copies.tolist()}) == 3


def test_greedy_leaves_torchs_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    ours("llama", ONE, draft="ngram")
    assert torch.equal(torch.rand(3), expected)


def test_warps_of_the_draft_keep_it_useful_at_a_low_temperature():
    """The target as its own draft under the same warps: everything is kept, so forwards are few."""
    model = build("llama")
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    wrap(model)
    calls.clear()
    model.generate(
        **ONE,
        custom_generate=ventris.hf_generate,
        draft_model=model,
        policy="fixed",
        **{**SAMPLED, "temperature": 0.2, "max_new_tokens": 40},
        seed=1,
    )
    # Four drafts and a check for every five tokens.
    assert len(calls) <= 44


def test_own_guides_come_before_the_warps():
    """A mask that forbids the best token leaves the second best, even under top-k 1."""
    free = theirs("llama", ONE)
    best = int(free[0, len(PROMPTS[0])])
    settings = {"do_sample": True, "top_k": 1, "draft": "ngram", "seed": 1}
    result = ours("llama", ONE, guides=Forbid([best]), **settings)
    assert best not in result[0, len(PROMPTS[0]) :].tolist()
    pairs = ours("llama", padded(), guides=[NoRepeatedPairs()], draft="ngram")
    for row in pairs[:, -COUNT:].tolist():
        assert len(set(pairwise(row))) == COUNT - 1


def test_a_model_is_wrapped_once_and_not_kept_alive():
    model = build("llama")
    first = wrap(model)
    assert wrap(model) is first
    model.to(torch.float64)
    assert wrap(model) is not first
    count, gone = len(_known), weakref.ref(model)
    del model, first
    gc.collect()
    assert gone() is None
    assert len(_known) == count - 1


@pytest.mark.parametrize(
    ("inputs", "settings", "message"),
    [
        (ONE, {"num_beams": 3}, "num_beams is 3"),
        (ONE, {"synced_gpus": True}, "synced_gpus"),
        (ONE, {"penalty_alpha": 0.6, "top_k": 4}, "contrastive"),
        (ONE, {"return_dict_in_generate": True, "output_attentions": True}, "attentions"),
        (padded(), {"streamer": Listening()}, "4 rows"),
        ({"input_ids": torch.tensor([[5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}, {}, "left"),
        ({"input_ids": torch.tensor([[5, 6]]), "position_ids": torch.tensor([[3, 4]])}, {}, "position_ids"),
        ({"inputs_embeds": torch.zeros(1, 3, 32)}, {}, "inputs_embeds"),
        ({"input_ids": torch.empty((1, 0), dtype=torch.long)}, {}, "empty"),
        (ONE, {"draft": "nothing"}, "unknown drafter"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_refusals_are_one_clear_line(inputs, settings, message):
    with pytest.raises(BadInput, match=message) as caught:
        ours("llama", inputs, **settings)
    assert "\n" not in str(caught.value)


def test_a_filled_cache_is_refused():
    cache = hf.DynamicCache(config=tiny("llama").config)
    tiny("llama")(ONE["input_ids"][:, :3], past_key_values=cache)
    with pytest.raises(BadInput, match="past_key_values"):
        ours("llama", ONE, past_key_values=cache)


def test_parts_that_cannot_work_together_are_refused():
    record = {"return_dict_in_generate": True, "output_scores": True}
    with pytest.raises(Incompatible, match="synthetic"):
        ours("llama", ONE, draft="ngram", verifier="synthetic", **record)
    with pytest.raises(Incompatible, match="greedy"):
        ours("llama", ONE, verifier="greedy", do_sample=True)

    class Uncopied(Alternating):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    with pytest.raises(Incompatible, match="no copies"):
        ours("llama", padded(), logits_processor=[Uncopied()])
    ours("llama", ONE, logits_processor=[Uncopied()], max_new_tokens=3)


def test_models_that_cannot_be_used_are_refused():
    with pytest.raises(BadInput, match="training mode"):
        wrap(build("gpt2").train())
    other = hf.LlamaForCausalLM(hf.LlamaConfig(**{**SMALL, "vocab_size": 50}, intermediate_size=48)).eval()
    with pytest.raises(BadInput, match="share one vocabulary"):
        ours("llama", ONE, draft_model=other)


def test_an_error_in_a_processor_reaches_the_caller():
    class Broken(LogitsProcessor):
        def __call__(self, input_ids, scores):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ours("llama", ONE, draft="ngram", logits_processor=[Broken()])


def test_warpers_given_by_hand_are_applied_once():
    settings = {"do_sample": True, "top_k": 0, "seed": 4, "max_new_tokens": 30}
    by_hand = ours("llama", ONE, logits_processor=[TemperatureLogitsWarper(0.7)], **settings)
    assert torch.equal(by_hand, ours("llama", ONE, temperature=0.7, **settings))
