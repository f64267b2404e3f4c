"""Every family and rope variant gives the logits, hidden rows and attention of transformers."""

from __future__ import annotations

import families
import pytest
import torch

from ventris.engine.cache import KVCache
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Target
from ventris.models.parameter_count import parameter_count
from ventris.models.torch_decoder import TorchDecoder
from ventris.models.weights import dense, quantize


def text(count: int, seed: int = 1) -> list[int]:
    return torch.randint(0, 96, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def chain(cache: KVCache, tokens: list[int]) -> Rows:
    return Rows(cache, tokens, range(-1, len(tokens) - 1))


@pytest.mark.parametrize("name", families.NAMES)
def test_logits_equal_transformers(name, family, decoder):
    target = decoder(name)
    tokens = text(40)
    logits = target.forward([chain(target.new_cache(), tokens)]).logits[0]
    torch.testing.assert_close(logits, family(name).reference(tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", families.NAMES)
def test_the_count_of_numbers_is_that_of_transformers(name, family):
    reference = family(name).hf_model
    assert parameter_count(family(name).config) == sum(p.numel() for p in reference.parameters())


@pytest.mark.parametrize("name", ["llama-yarn", "gemma2", "gemma3"])
def test_steps_of_one_token_equal_one_pass(name, family, decoder):
    target = decoder(name)
    tokens = text(20)
    cache = target.new_cache(capacity=4)
    rows = []
    for token in tokens:
        rows.append(target.forward([Rows(cache, [token], [-1])]).logits[0])
        cache.commit([0])
    torch.testing.assert_close(torch.cat(rows), family(name).reference(tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_taps_are_the_inputs_of_the_layers(name, family, decoder):
    target = decoder(name)
    tokens = text(12)
    with torch.no_grad():
        theirs = family(name).hf_model(torch.tensor([tokens]), output_hidden_states=True).hidden_states
    tapped = target.forward([chain(target.new_cache(), tokens)], taps=[0, 2, 4]).hidden
    assert sorted(tapped) == [0, 2, 4]
    torch.testing.assert_close(tapped[0], theirs[0][0], atol=1e-4, rtol=0)
    torch.testing.assert_close(tapped[2], theirs[2][0], atol=1e-4, rtol=0)
    # transformers applies the final norm to the last one.
    torch.testing.assert_close(target.final_norm(tapped[4]), theirs[4][0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral"])
def test_attention_row(name, family, decoder):
    target, model = decoder(name), family(name).hf_model
    tokens = text(12)
    cache = target.new_cache()
    tapped = target.forward([chain(cache, tokens)], taps=range(4)).hidden
    cache.commit(range(12))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        theirs = model(torch.tensor([tokens]), output_attentions=True).attentions
    for layer in range(4):
        for position in (5, 11):
            row = target.attention_row(cache, layer, tapped[layer][position], position)
            torch.testing.assert_close(row, theirs[layer][0, :, position], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_two_segments_and_a_head_equal_forward(name, decoder):
    target = decoder(name)
    tokens = text(10)
    whole = target.forward([chain(target.new_cache(), tokens)], taps=[1, 2]).hidden
    logits = target.forward([chain(target.new_cache(), tokens)]).logits[0]

    batch = [chain(target.new_cache(capacity=2), tokens)]
    half, early = target.run_layers(batch, target.embed(batch), 0, 2, taps=[1, 2])
    full, late = target.run_layers(batch, half, 2, 4, taps=[1])
    assert torch.equal(early[1], whole[1])
    assert torch.equal(early[2], whole[2])
    assert late == {}
    torch.testing.assert_close(target.head(full), logits, atol=1e-5, rtol=0)


def test_embeddings_stand_in_for_tokens(decoder):
    target = decoder("gemma2")
    tokens = text(9)
    plain = [chain(target.new_cache(), tokens)]
    given = Rows(target.new_cache(), [-1] * 9, range(-1, 8), embeddings=target.embed(plain))
    expected = target.forward(plain).logits[0]
    assert torch.equal(target.forward([given]).logits[0], expected)


def test_only_wanted_nodes_get_logits(decoder):
    target = decoder("llama")
    tokens = text(6)
    every = target.forward([chain(target.new_cache(), tokens)]).logits[0]
    first, second, third = chain(target.new_cache(), tokens), chain(target.new_cache(), tokens), None
    first.wanted, second.wanted = [5, 1], []
    third = chain(target.new_cache(), tokens[:2])
    some = target.forward([first, second, third]).logits
    torch.testing.assert_close(some[0], every[[5, 1]], atol=1e-5, rtol=0)
    assert some[1].shape == (0, 96)
    torch.testing.assert_close(some[2], every[:2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types(dtype, family, decoder):
    target = TorchDecoder(family("llama").config, family("llama").weights, dtype)
    tokens = text(12)
    scores = target.forward([chain(target.new_cache(), tokens)], taps=[4])
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert scores.logits[0].dtype == wide
    assert scores.hidden[4].dtype == dtype
    reference = family("llama").reference(tokens).to(wide)
    error = (scores.logits[0] - reference).abs().mean() / reference.std()
    assert error < (1e-6 if dtype == torch.float64 else 0.05)
    assert target.forward([Rows(target.new_cache(), [3], [-1], wanted=[])]).logits[0].shape == (0, 96)


def test_quantized_weights_are_expanded(family):
    f = family("llama")
    packed = {n: quantize(w, 8) if n.endswith("_proj.weight") and w.shape[1] % 32 == 0 else w
              for n, w in f.weights.items()}  # fmt: skip
    expanded = {n: dense(w) for n, w in packed.items()}
    one, two = TorchDecoder(f.config, packed), TorchDecoder(f.config, expanded)
    tokens = text(5)
    ours = one.forward([chain(one.new_cache(), tokens)]).logits[0]
    assert torch.equal(ours, two.forward([chain(two.new_cache(), tokens)]).logits[0])


def test_bad_input_is_refused(family, decoder):
    target = decoder("llama")
    assert isinstance(target, Target)
    with pytest.raises(BadInput, match="token 96 is outside the vocabulary of 96"):
        target.forward([Rows(target.new_cache(), [96], [-1])])
    with pytest.raises(BadInput, match="position 128 is past the context of 128"):
        target.forward([chain(target.new_cache(), text(129))])
    with pytest.raises(BadInput, match="parents"):
        target.forward([Rows(target.new_cache(), [1, 2], [-1])])
    with pytest.raises(BadInput, match="shape"):
        target.forward([Rows(target.new_cache(), [1], [-1], embeddings=torch.zeros(2, 32))])
    with pytest.raises(BadInput, match="cannot tap"):
        target.forward([Rows(target.new_cache(), [1], [-1])], taps=[5])
    with pytest.raises(BadInput, match="sees none"):
        target.attention_row(target.new_cache(), 0, torch.zeros(32), 0)
    weights = {n: w for n, w in family("llama").weights.items() if n != "model.norm.weight"}
    with pytest.raises(BadInput, match=r"no weight 'model\.norm\.weight'"):
        TorchDecoder(family("llama").config, weights)
