"""Low-rank changes of a decoder: nothing at first, off when asked, and the same once they are merged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import ventris
from ventris.draft.target_sketch import TargetSketch
from ventris.draft.tuning import PROBES, Tuning, probe_logits
from ventris.engine.errors import BadInput
from ventris.models.low_rank import LowRankChanges, apply_changes, untied
from ventris.models.source import resolve
from ventris.models.target_folder import target_config, write_target_folder
from ventris.models.torch_decoder import TorchDecoder
from ventris.models.weights import dense


@pytest.fixture
def source(tiny_folder):
    return resolve(tiny_folder)


def changed(source, size: float = 0.0) -> tuple[TorchDecoder, LowRankChanges]:
    """The tiny model with changes; ``size`` 0 leaves them as they start."""
    changes = LowRankChanges(source.config, rank=4, alpha=8.0, dropout=0.5)
    if size:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in changes.up.parameters():
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    decoder = TorchDecoder(source.config, source.weights)
    apply_changes(decoder, changes.eval())
    return decoder, changes


def test_changes_start_as_none(source):
    plain = probe_logits(TorchDecoder(source.config, source.weights))
    decoder, changes = changed(source)
    assert torch.equal(probe_logits(decoder), plain)
    assert all(bool(parameter.any()) for parameter in changes.down.parameters())


def test_changes_reach_every_matrix_and_can_be_switched_off(source):
    plain = probe_logits(TorchDecoder(source.config, source.weights))
    for name in LowRankChanges(source.config, 4, 8.0, 0.0).up:
        decoder, changes = changed(source)
        with torch.no_grad():
            changes.up[name].fill_(0.3)
        assert not torch.allclose(probe_logits(decoder), plain, atol=1e-3), name
        with changes.off():
            assert torch.equal(probe_logits(decoder), plain), name
    assert len(list(changes.up)) == 2 * 7 + 1


def test_merged_weights_are_the_decoder_with_its_changes(source):
    decoder, changes = changed(source, 0.1)
    merged = changes.merged(source.weights)
    assert torch.equal(
        merged["model.embed_tokens.weight"], dense(source.weights["model.embed_tokens.weight"])
    )
    whole = TorchDecoder(untied(source.config), merged)
    assert torch.allclose(probe_logits(whole), probe_logits(decoder), atol=1e-4)
    assert not torch.allclose(merged["lm_head.weight"], merged["model.embed_tokens.weight"], atol=1e-2)


def test_dropout_is_for_training_alone(source):
    decoder, changes = changed(source, 0.1)
    assert torch.equal(probe_logits(decoder), probe_logits(decoder))
    changes.train()
    assert not torch.equal(probe_logits(decoder), probe_logits(decoder))


def rounded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: w.bfloat16().float() if w.dim() > 1 else w for name, w in weights.items()}


def test_a_written_folder_is_the_merged_model(source, tmp_path):
    decoder, changes = changed(source, 0.1)
    merged, config = changes.merged(source.weights), untied(source.config)
    # Over what a run left that was killed in between.
    write_target_folder(tmp_path, source.config, source.weights, source.tokenizer)
    write_target_folder(tmp_path, config, merged, source.tokenizer)
    loaded = ventris.load(str(tmp_path), "float32", "torch", "cpu")
    assert torch.equal(probe_logits(loaded.target), probe_logits(TorchDecoder(config, rounded(merged))))
    apart = (probe_logits(loaded.target) - probe_logits(decoder)).norm() / probe_logits(decoder).norm()
    assert 0 < apart < 0.02  # bfloat16
    assert loaded.tokenizer.fingerprint == source.tokenizer.fingerprint
    assert loaded.tokenizer.facts == source.tokenizer.facts
    assert loaded.source.config == config


def test_transformers_reads_the_folder_alike(source, tmp_path):
    transformers = pytest.importorskip("transformers")
    _, changes = changed(source, 0.1)
    write_target_folder(tmp_path, untied(source.config), changes.merged(source.weights), source.tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ours = ventris.load(str(tmp_path), "float32", "torch", "cpu")
    tokens = torch.tensor([[i * 7919 % ours.target.vocab_size for i in range(PROBES)]])
    with torch.no_grad():
        logits = theirs(tokens).logits[0]
    assert torch.allclose(logits, probe_logits(ours.target), atol=1e-4)
    named = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert named("say 3 and 3")["input_ids"] == ours.tokenizer.encode("say 3 and 3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "gemma2"}, "of the family gemma2 cannot be written"),
        ({"logit_softcap": 30.0}, "config.json cannot say all that it is"),
        ({"rotary_dim": 4}, "config.json cannot say all that it is"),
    ],
)
def test_what_a_config_cannot_say_is_refused(source, change, message):
    target_config(source.config)
    with pytest.raises(BadInput, match=message):
        target_config(replace(source.config, **change))


def test_a_tuned_target_is_told_from_the_one_before_in_any_format(source, tmp_path):
    decoder, changes = changed(source, 0.05)
    before = TorchDecoder(source.config, source.weights)
    write_target_folder(tmp_path, untied(source.config), changes.merged(source.weights), source.tokenizer)
    tuning = Tuning.of(before, decoder)
    narrow = TorchDecoder(source.config, source.weights, dtype=torch.bfloat16)
    assert abs(tuning.share(before)) < 1e-3
    assert abs(tuning.share(narrow)) < 0.3
    assert abs(tuning.share(decoder) - 1) < 1e-3
    for dtype in ("float32", "bfloat16"):
        assert abs(tuning.share(ventris.load(str(tmp_path), dtype, "torch", "cpu").target) - 1) < 0.3
    sketch = replace(TargetSketch.of(decoder), tuning=tuning)
    assert sketch.mismatch(decoder) == ""
    assert sketch.mismatch(narrow) == "the weights from before it was tuned"
    with pytest.raises(BadInput, match="tuning changed nothing"):
        Tuning.of(before, before)


def test_a_sketch_without_tuning_is_stored_as_ever(source):
    sketch = TargetSketch.of(TorchDecoder(source.config, source.weights))
    assert "tuning" not in sketch.stored()
    assert TargetSketch.read(sketch.stored()) == sketch
    tuned = replace(sketch, tuning=Tuning((1.0, 2.0), (3.0, 4.0)))
    assert TargetSketch.read(tuned.stored()) == tuned
    assert tuned.digest != sketch.digest
