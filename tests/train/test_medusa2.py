"""Medusa-2: heads first, then both; what comes out is a target of its own, with heads that know it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from interruptions import Killed, killed_again_and_again
from safetensors.torch import load_file

import ventris
from ventris.draft.checkpoint import read_config
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows
from ventris.models.embedded import EMBEDDED_NAME
from ventris.models.low_rank import LowRankChanges, apply_changes
from ventris.models.source import resolve
from ventris.models.torch_decoder import TorchDecoder
from ventris.train import medusa2
from ventris.train.medusa import MedusaObjective, train_medusa
from ventris.train.medusa2 import train_medusa2
from ventris.train.medusa2_settings import Medusa2Settings
from ventris.train.medusa_joint import JointObjective
from ventris.train.quality import tuned_quality
from ventris.train.run import prepare
from ventris.train.settings import MedusaSettings, read_settings
from ventris.train.trainer import make_optimizer
from ventris.train.windows import Batch, Windows


def settings(given: dict, **changes) -> Medusa2Settings:
    own = {"steps": 20, "head_steps": 20, "rank": 4, "learning_rate": 3e-3, "head_learning_rate": 1e-2}
    return read_settings(Medusa2Settings, {**given, **own, **changes})


def weights(folder: object) -> list[bytes]:
    files = ("model.safetensors", "medusa/model.safetensors", "config.json", "tokenizer.json")
    return [(Path(str(folder)) / name).read_bytes() for name in files]


def joint(given: dict, **changes) -> tuple[JointObjective, Medusa2Settings, Batch]:
    """The objective of the joint steps on heads that nobody trained, and a batch."""
    chosen = settings(given, **changes)
    prepared = prepare(chosen)
    heads = MedusaObjective(prepared.lesson, chosen).network
    source = prepared.lesson.model.source
    decoder = TorchDecoder(source.config, source.weights)
    low_rank = LowRankChanges(source.config, chosen.rank, chosen.alpha, chosen.dropout)
    objective = JointObjective(prepared.lesson, chosen, heads, decoder, low_rank)
    apply_changes(decoder, low_rank)
    return objective, chosen, Windows(prepared.learnt, prepared.taps, 64, 4, 0).batch(0)


def test_heads_learn_first_and_the_target_only_then(given):
    run = Path(given["out"]) / "run"

    def until(phase: str, step: int):
        def progress(what, done, total):
            if what.startswith(phase) and done == step:
                raise Killed

        return progress

    with pytest.raises(Killed):
        train_medusa2(settings(given), until("training medusa2", 0))
    alone = load_file(run / "heads.safetensors")
    assert not any("changes" in name for name in alone)
    assert float(alone["parameter.weight"].abs().max()) > 0
    assert not (run / "state.safetensors").exists()
    with pytest.raises(Killed):
        train_medusa2(settings(given), until("training medusa2", 15))
    both = load_file(run / "state.safetensors")
    assert all(float(both[name].abs().max()) > 0 for name in both if name.startswith("parameter.changes.up"))
    assert not torch.equal(both["parameter.heads.weight"], alone["parameter.weight"])


def test_the_heads_loss_rises_as_a_sine_and_heads_learn_faster(given):
    objective, chosen, _ = joint(given, head_factor=4.0)
    assert [round(objective.head_weight(step), 6) for step in (0, 10, 20)] == [0, 0.007071, 0.01]
    other = JointObjective.head_weight(
        SimpleNamespace(settings=chosen.model_copy(update={"base_loss": "cross_entropy"})), chosen.steps
    )
    assert other == pytest.approx(0.2)
    factors = {}
    for group in make_optimizer(objective.network, chosen).param_groups:
        for name, parameter in objective.network.named_parameters():
            if any(parameter is some for some in group["params"]):
                factors[name.split(".")[0]] = factors.get(name.split(".")[0], set()) | {group["factor"]}
    assert factors == {"heads": {4.0}, "changes": {1.0}}


def test_at_first_the_target_is_its_own_teacher(given):
    objective, _, batch = joint(given)
    objective.network.eval()
    # The heads weigh nothing at step 0, and without changes KL is nothing.
    assert abs(objective.loss(batch, torch.Generator().manual_seed(0)).item()) < 1e-6
    with torch.no_grad():
        for parameter in objective.network.changes.up.parameters():
            parameter.fill_(0.1)
    moved = objective.loss(batch, torch.Generator().manual_seed(0))
    assert moved.item() > 1e-3
    torch.autograd.backward(moved)
    assert all(parameter.grad is not None for parameter in objective.network.changes.parameters())


@pytest.fixture(scope="module")
def finished(quick, tmp_path_factory):
    """A whole run: its result, its folder, and the texts that its heads were measured on."""
    folder = tmp_path_factory.mktemp("medusa2")
    given = {**quick, "out": str(folder / "tuned")}
    seen = {}

    def spy(objective, windows, device):
        seen["windows"] = windows
        return measure(objective, windows, device)

    measure, medusa2.measure = medusa2.measure, spy
    try:
        result = train_medusa2(settings(given, steps=40), None, "ventris train medusa2 …")
    finally:
        medusa2.measure = measure
    return SimpleNamespace(result=result, out=given["out"], given=given, windows=seen["windows"])


def test_the_tuned_target_is_a_model_with_heads_of_its_own(finished, tiny_folder):
    model = ventris.load(finished.out, "float32", "torch", "cpu")
    prompts = ["say 3 and 3", "tell 5", "x"]
    plain = model.generate(prompts, max_new_tokens=30)
    for named in (finished.out, f"{finished.out}/medusa"):
        drafted = model.generate(prompts, max_new_tokens=30, draft=f"medusa:{named}", policy="fixed")
        assert [c.tokens for c in drafted] == [c.tokens for c in plain]
        assert sum(c.stats.accepted for c in drafted) > 0
    original = ventris.load(str(tiny_folder), "float32", "torch", "cpu")
    with pytest.raises(BadInput, match="this one has the weights from before it was tuned"):
        original.generate("x", draft=f"medusa:{finished.out}")


def test_heads_are_measured_on_what_the_tuned_target_says(finished, tiny_folder):
    folders = (finished.out, str(tiny_folder))
    model, original = (ventris.load(folder, device="cpu", threads=1) for folder in folders)
    answered = [text for text in finished.windows.texts if text.answer.any() and not text.answer.all()]
    prompts = [text.tokens[~text.answer].tolist() for text in answered]
    said = [text.tokens[text.answer].tolist() for text in answered]
    asked = {"max_new_tokens": 24, "temperature": 0.0}
    assert [done.tokens for done in model.generate(prompts, **asked)] == said
    assert [done.tokens for done in original.generate(prompts, **asked)] != said
    stored = read_config(Path(finished.out) / "medusa")
    assert stored["training"]["held_out_acceptance"][0] == round(finished.result.trained.acceptance[0], 4)
    assert len(stored["training"]["heads_alone_acceptance"]) == 3


def test_the_cards_say_what_tuning_cost(finished):
    quality = finished.result.quality
    assert 0 < quality.kl < 1
    assert 0 < quality.agreement <= 1
    card = (Path(finished.out) / "README.md").read_text()
    assert f"{quality.kl:.4f}" in card
    assert "    ventris train medusa2 …" in card
    stored = read_config(Path(finished.out) / "medusa")["training"]["quality"]
    assert stored["kl"] == round(quality.kl, 6)
    assert not (Path(finished.out) / "run").exists()
    with pytest.raises(BadInput, match="holds a finished checkpoint"):
        train_medusa2(settings(finished.given))


def test_quality_is_what_it_says(tiny_folder, finished):
    source = resolve(tiny_folder)
    before = TorchDecoder(source.config, source.weights)
    after = ventris.load(finished.out, "float32", "torch", "cpu").target
    text = next(text for text in finished.windows.texts if text.answer.any())
    same = tuned_quality(before, before, [text])
    assert same.kl == pytest.approx(0, abs=1e-7)
    assert (same.agreement, same.perplexity_ratio) == (1, 1)
    found = tuned_quality(before, after, [text])
    tokens = torch.from_numpy(text.tokens).long()
    said = torch.from_numpy(text.answer[1:].copy())
    laws = []
    for target in (before, after):
        cache = target.new_cache(len(tokens))
        rows = [Rows(cache, tokens[:-1].tolist(), range(-1, len(tokens) - 2))]
        laws.append(target.forward(rows).logits[0].log_softmax(-1)[said])
    q, p = laws
    assert found.kl == pytest.approx(float((q.exp() * (q - p)).sum(-1).mean()), rel=1e-3)
    assert found.agreement == pytest.approx(float((q.argmax(-1) == p.argmax(-1)).float().mean()))
    nats = -p.gather(1, tokens[1:][said][:, None]).mean()
    assert found.perplexity_after == pytest.approx(float(nats.exp()), rel=1e-4)


def test_interruptions_change_no_bit(given):
    whole = given["out"] + "-whole"
    train_medusa2(settings(given, out=whole))
    killed_again_and_again(lambda progress: train_medusa2(settings(given), progress), 8, 30)
    assert weights(given["out"]) == weights(whole)


def test_it_goes_on_from_trained_heads(given):
    first = given["out"] + "-first"
    train_medusa(read_settings(MedusaSettings, {**given, "out": first, "steps": 10}))
    said: list[str] = []
    result = train_medusa2(settings(given, start=first, steps=4), lambda what, done, total: said.append(what))
    assert {what.split()[1].rstrip(":") for what in said if what.startswith("training")} == {"medusa2"}
    assert len(result.trained.acceptance) == 3
    facts = read_config(Path(given["out"]) / "medusa")["training"]
    assert facts["settings"]["start"] == "heads-first"
    assert facts["heads_alone_acceptance"] is None
    with pytest.raises(BadInput, match=r"has heads 3 in place of 2"):
        train_medusa2(settings(given, start=first, heads=2, out=given["out"] + "-other"))


def test_the_folder_may_have_the_name_of_another_model(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = train_medusa2(settings(given, out=EMBEDDED_NAME, head_steps=2, steps=4))
    assert result.quality.kl > 0
    assert resolve(tmp_path / EMBEDDED_NAME).config.hidden_size == resolve(given["model"]).config.hidden_size


@pytest.mark.parametrize("own_rows", [False, True])
def test_a_target_that_may_change_is_guessed_better(given, tmp_path, own_rows):
    letters = "abcdefghijklm" * 5
    path = tmp_path / "alphabet.jsonl"
    path.write_text("\n".join(json.dumps({"text": letters[i % 13 :][:40]}) for i in range(60)))
    result = train_medusa2(
        settings(
            {**given, "data": str(path)},
            own_rows=own_rows,
            base_loss="cross_entropy",
            head_steps=0 if own_rows else 60,
            steps=150,
            learning_rate=1e-2,
            head_factor=1.0,
            dropout=0.0,
        )
    )
    assert (result.trained.ranks == 0).float().mean() > 0.9
    assert result.quality.perplexity_after < 0.5 * result.quality.perplexity_before
    alone = read_config(Path(given["out"]) / "medusa")["training"]["heads_alone_acceptance"]
    assert own_rows or alone[0] < 0.8 < result.trained.acceptance[0]
