"""A whole study of toys, its page, its files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from known_pairs import PROMPTS, DiffersAt, large

from ventris.engine.errors import BadInput
from ventris.model import Model
from ventris.study.files import to_json, write_study
from ventris.study.law import LawFound
from ventris.study.page import render_page
from ventris.study.quality import mean_nats
from ventris.study.run import Study, run_study, study, write
from ventris.study.settings import read_settings
from ventris.study.small_models import SmallModel
from ventris.testing import ToyTarget

EMPTY_TAGS = {"meta", "line", "circle", "rect", "polyline", "polygon", "br"}


def small_model(name: str, target: ToyTarget, parameters: int) -> SmallModel:
    return SmallModel(name, "model", target, parameters)


def family() -> list[SmallModel]:
    """Small models that are further from the large one, the smaller they are."""
    return [
        small_model(f"toy-{size}", ToyTarget(8, sharpness=3.0, blend=(4, blend)), size)
        for size, blend in ((10, 0.45), (20, 0.4), (40, 0.3), (80, 0.2), (160, 0.1))
    ]


@pytest.fixture(scope="module")
def made() -> Study:
    settings = read_settings(
        {
            "max_new_tokens": 24,
            "rates": [0.2],
            "methods": ["oracle", "contrast", "mixture", "proxy"],
            "tuned": "t",
        }
    )
    tuned = small_model("toy-tuned", ToyTarget(8, sharpness=3.0, blend=(9, 0.4)), 10)
    return study(Model(large()), 320, family(), PROMPTS * 2, settings, tuned)


def test_every_pair_and_method_is_there(made):
    report = made.report
    assert [(p.method, p.small) for p in report.pairs] == [
        *((m, one.name) for m in ("oracle", "contrast", "mixture") for one in family()),
        ("proxy", "toy-tuned"),
    ]
    assert [p.ratio for p in report.of("oracle")] == [32, 16, 8, 4, 2]
    frequencies = [p.profile.frequency.value for p in report.of("oracle")]
    assert frequencies[0] > frequencies[2] > frequencies[-1] > 0
    assert isinstance(report.laws["oracle"], LawFound)
    assert "proxy" not in report.laws
    assert report.routed is not None
    assert {run.router for run in report.routed.runs} >= {"confidence"}
    assert len(made.seen) == len(report.pairs)


def test_the_text_of_every_method_is_held_against_the_large_model_s_own(made):
    """Its own text is all like itself and the likeliest here; a rule that changes it pays."""
    own = made.report.of("oracle")[0]
    assert {(pair.likeness, pair.nats) for pair in made.report.of("oracle")} == {(100.0, own.nats)}
    for pair in (*made.report.of("contrast"), *made.report.of("proxy")):
        assert pair.likeness < 100
    mixed = made.report.of("mixture")
    assert mixed[0].likeness < mixed[-1].likeness  # a tenth of the other law against nearly a half
    assert mixed[0].nats > own.nats
    tokens = large().logits
    answers = write(Model(large()), [PROMPTS[0]], 24)
    text, nats = list(PROMPTS[0]), []
    for token in answers[0].tokens:
        nats.append(-float(tokens(text).log_softmax(-1)[token]))
        text.append(token)
    assert mean_nats(Model(large()), [answers[0].tokens], answers) == pytest.approx(np.mean(nats))


def test_nothing_to_study_is_refused():
    settings = read_settings({"max_new_tokens": 4})
    for small, prompts in ((family(), []), ([], PROMPTS)):
        with pytest.raises(BadInput, match="needs prompts and small models"):
            study(Model(large()), 320, small, prompts, settings)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_loaded(tmp_path: Path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(BadInput, match=r"cannot write to the folder .*taken: "):
        run_study(read_settings({"model": "no/such/model", "out": str(tmp_path / "taken")}))


def test_a_small_model_that_is_the_large_one():
    settings = read_settings({"max_new_tokens": 10, "methods": ["oracle"]})
    report = study(Model(large()), 100, [small_model("twin", large(), 100)], PROMPTS, settings).report
    assert report.pairs[0].profile.frequency.value == 0
    assert "never differs" in report.routers
    assert report.routed is None
    assert "at least 4 ratios" in report.laws["oracle"]
    assert "0.0 %" in render_page(report)


def test_known_places_come_out_in_the_report():
    settings = read_settings({"max_new_tokens": 20, "methods": ["oracle"], "rates": []})
    prompts = [[1, 2, 3], [3, 1, 1], [2, 2, 1], [4, 4, 4]]
    small = small_model("twin", DiffersAt(8, [3, 4, 23]), 50)
    found = study(Model(large()), 100, [small], prompts, settings)
    profile = found.report.pairs[0].profile
    assert profile.frequency.value == 2 / 20  # the third would lie behind the answer
    assert profile.first_tenth.value == 1
    assert profile.rest.value == 0
    assert "in the first tenth of an answer, 0.0 % after it" in render_page(found.report)
    assert found.report.routed is None
    assert any("cut at 20 tokens" in warning for warning in found.report.warnings)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.used: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.used.add(tag)
        assert not {name for name, _ in attrs} & {"src", "href"}
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in EMPTY_TAGS:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(made):
    page = render_page(made.report)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not tags.used & {"script", "link", "img", "iframe"}
    assert "http" not in page
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<svg") == 6
    assert "nan" not in re.findall(r"[a-z]+", page)
    for title in ("How often", "Where", "When", "By size", "Routers", "Decoding with routers"):
        assert f"<h2>{title}</h2>" in page


def test_nothing_is_drawn_beyond_the_charts(made):
    for x, y in re.findall(r'c?x="?(-?[\d.]+)"? c?y="?(-?[\d.]+)', render_page(made.report)):
        assert 0 <= float(x) <= 860
        assert 0 <= float(y) <= 330


def test_names_from_outside_cannot_become_markup(made):
    pairs = [replace(pair, small="<b>&", kind="<i>") for pair in made.report.pairs]
    page = render_page(replace(made.report, pairs=pairs, model="<u>", warnings=["<s>"]))
    assert not re.search(r"<(b|i|u|s)>", page)


def test_files_are_written_whole_and_hold_every_token(made, tmp_path: Path):
    paths = write_study(made, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored == json.loads(to_json(made.report))
    arrays = np.load(tmp_path / "out" / "tokens.npz")
    for number, pair in enumerate(stored["pairs"]):
        assert arrays[f"{number}.mismatch"].mean() == pytest.approx(pair["profile"]["frequency"]["value"])
        assert arrays[f"{number}.top"].shape == (len(arrays[f"{number}.place"]), 10)
    (tmp_path / "taken").write_text("")
    with pytest.raises(BadInput, match="cannot write the study"):
        write_study(made, tmp_path / "taken")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ["emulate"]}, "methods.0 is 'emulate'"),
        ({"methods": []}, "methods"),
        ({"small": ["a", "a"]}, "small names 'a' twice"),
        ({"rates": [1.5]}, "a rate of calls is 1.5"),
        ({"methods": ["proxy"]}, "needs a tuned model"),
        ({"tuned": "a"}, "method proxy is not asked for"),
        ({"template": "{a}"}, "give data"),
        ({"colour": "red"}, "no setting 'colour'; see ventris study --help"),
        ({"max_new_tokens": 1}, "max_new_tokens is 1"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(given, said):
    with pytest.raises(BadInput) as caught:
        read_settings(given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
