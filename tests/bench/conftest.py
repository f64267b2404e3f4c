"""A toy model and a report on it, so that nothing here waits for a real model."""

from __future__ import annotations

import pytest
from bench_runs import QUESTIONS

from ventris.bench import BenchSettings, Report, run_bench
from ventris.model import Model
from ventris.testing.toy import ToyTarget


@pytest.fixture(scope="session")
def toy() -> Model:
    """A model whose text repeats itself, so that n-gram drafts are accepted."""
    return Model(ToyTarget(vocab_size=6, memory=2))


@pytest.fixture(scope="session")
def toy_report(toy: Model) -> Report:
    settings = BenchSettings(
        methods=["autoregressive", "ngram", "always = ngram @ fixed"],
        peers=["llama.cpp", "transformers"],
        max_new_tokens=12,
        repeats=2,
        batch=2,
    )
    return run_bench(settings, model=toy, questions=QUESTIONS)
