from __future__ import annotations

import subprocess
import sys

import pytest

from ventris.bench import BenchSettings, read_settings
from ventris.engine.errors import BadInput


def test_defaults_compare_plain_decoding_with_ngram_drafts() -> None:
    settings = BenchSettings()
    assert settings.methods == ["autoregressive", "ngram"]
    assert settings.peers == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"repeats": 0}, "repeats"),
        ({"max_new_tokens": 1}, "max_new_tokens"),
        ({"kernels": "fast"}, "kernels"),
        ({"batch": 1}, "batch"),
        ({"temprature": 1}, "no setting 'temprature'"),
    ],
)
def test_wrong_settings_are_one_line_that_names_them(given: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        read_settings(given)
    assert "\n" not in str(caught.value)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in BenchSettings.model_fields.values())


def test_settings_need_no_torch() -> None:
    code = "import sys, ventris.bench; ventris.bench.BenchSettings(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
