"""What the script that proves the exports in vLLM says of two engines' answers; vLLM itself is not run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "vllm_accepts_exports.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip("the scripts under bench/ come with the repository, not with the package")
    spec = importlib.util.spec_from_file_location("vllm_accepts_exports", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_where_answers_part(script):
    same, longer, other = [1, 2, 3], [1, 2, 3, 4], [1, 9, 3]
    assert script.differences([same, same], [same, same]) == "2 of 2 equal"
    told = script.differences([same, same, same], [same, longer, other])
    assert told == "1 of 3 equal; others part in answer 2 at token 4, answer 3 at token 2"


def test_acceptance_is_counted_as_vllm_counts_it(script):
    """Mean length: one token of the target's own with each draft, and the accepted ones."""
    accepted = script.Acceptance(10, [6, 3, 1])
    assert accepted.mean_length == pytest.approx(2.0)
    assert str(accepted) == "2.000 tokens a pass (0.600 0.300 0.100 by depth, 10 drafts)"
    assert script.Acceptance(0, [0]).mean_length == 1.0


def test_what_vllm_refuses_is_said_and_is_no_answer(script, tmp_path, capsys):
    class Options:
        dtype, max_new_tokens, threads, verbose, vllm_python = "float32", 4, 1, False, sys.executable

    # This Python has no vLLM, or none of the models that are asked for.
    vllm = script.Vllm(Options, ["Hello."], tmp_path, tmp_path / "no-model")
    assert vllm.answers("plain", None) is None
    assert "vLLM fails (plain): " in capsys.readouterr().err
