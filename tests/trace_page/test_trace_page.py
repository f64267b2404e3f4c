"""The trace page: complete, inert whatever the tokens say, small, and alive in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from ventris.draft.model import DraftModel
from ventris.engine.errors import BadInput
from ventris.engine.request import Completion, Guarantee, Stats
from ventris.engine.trace import StepTrace, Trace, Visit
from ventris.model import Model
from ventris.testing.toy import ToyTarget
from ventris.trace_page import render_trace_page, write_trace_page
from ventris.trace_page.data import ONLY_CHOICE, fates_under_guides, page_data
from ventris.trace_page.text import shares, to_html, visible

HOSTILE = b"</script><img src=x onerror=alert(1)>"
VOCABULARY = [
    b"the", b" sea", b"\n", b"  deep", HOSTILE, b"\"'&amp;$title{}", "\u2028".encode(), "\u202eevil".encode(),
    b"<!--", b"\xf0\x9f", b"\x8c\x8a", b"\xff", b" wave", b"", b"<|end|>",
]  # fmt: skip


class ToyTokenizer:
    special_ids = frozenset({14})

    def token_bytes(self, token: int) -> bytes:
        return VOCABULARY[token]


class Forbid:
    """Forbids the best token at every second place, and leaves one choice at every fourth."""

    name = "forbid"
    masks = True

    def start(self, request: Any) -> ForbidState:
        return ForbidState()


class ForbidState:
    def __init__(self) -> None:
        self.place = 0

    def adjust(self, logits: torch.Tensor, view: Any) -> torch.Tensor:
        if self.place % 4 == 3:
            only = int(logits.argsort()[-2])
            logits[[token for token in range(len(logits)) if token != only]] = -torch.inf
        elif self.place % 2:
            logits[logits.argmax()] = -torch.inf
        return logits

    def advance(self, token: int) -> None:
        self.place += 1


def generate(drafted: bool = True, **settings: Any) -> Completion:
    target = ToyTarget(len(VOCABULARY), seed=1)
    draft = DraftModel(ToyTarget(len(VOCABULARY), seed=1, blend=(7, 0.3)), depth=4, width=3, nodes=12)
    settings = {"max_new_tokens": 40, "policy": "fixed:nodes=12", "trace": True} | settings
    completion: Completion = Model(target).generate([1, 2], draft=draft if drafted else None, **settings)
    return completion


class Page(HTMLParser):
    """What a browser would make of the document: its elements, and the text of some."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.spans: list[list[str]] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        classes = (dict(attrs).get("class") or "").split()
        self._inside = tag if tag != "b" else self._inside
        if "t" in classes:
            self.spans.append([""])
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside if tag == "b" else ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside == "span" and self.spans:
            self.spans[-1][0] += data

    @property
    def data(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.scripts[0])
        return value


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.9, "seed": 3}, {"guides": [Forbid()]}, {"drafted": False}]
)
def test_every_token_and_every_step_is_there_once(settings: dict[str, Any]) -> None:
    completion = generate(**settings)
    page = Page(render_trace_page(completion, ToyTokenizer()))
    data = page.data
    assert completion.trace is not None
    assert len(page.spans) == len(completion.tokens) == 40
    assert len(data["steps"]) == len(completion.trace.steps)
    shown = [v["token"] for step in data["steps"] for v in step["visits"][: step["count"]]]
    assert shown == completion.tokens
    assert [step["first"] for step in data["steps"]] == [
        sum(step["count"] for step in data["steps"][:i]) for i in range(len(data["steps"]))
    ]
    assert sum(source["count"] for source in data["sources"]) == 40
    used = {str(token) for step in data["steps"] for token in step["tokens"]}
    assert used <= set(data["names"])


def test_kept_nodes_are_a_path_that_spells_the_tokens() -> None:
    data = page_data(generate(), ToyTokenizer())
    for step in data["steps"]:
        taken = [visit["token"] for visit in step["visits"]]
        assert [step["tokens"][node] for node in step["kept"][1:]] == taken[: len(step["kept"]) - 1]
        assert all(step["parents"][b] == a for a, b in zip(step["kept"], step["kept"][1:], strict=False))


def test_without_drafts_every_token_is_the_targets() -> None:
    data = page_data(generate(drafted=False), ToyTokenizer())
    assert [source["name"] for source in data["sources"]] == ["target"]
    assert all(step["drafter"] is None and step["kept"] == [0] for step in data["steps"])


def test_hostile_text_stays_text() -> None:
    completion = one_step([4, 5, 6, 7, 8])
    html = render_trace_page(completion, ToyTokenizer(), title="<i>$css</i>", prompt_text="</pre><img src=x>")
    page = Page(html)
    assert "img" not in page.tags
    assert "i" not in page.tags[: page.tags.index("style")]
    assert len(page.scripts) == 2
    assert "\u2028" not in html
    assert "\u202e" not in html
    assert page.data["names"]["4"] == HOSTILE.decode().replace(" ", "␣")
    assert page.spans[0] == [HOSTILE.decode()]
    assert page.spans[1] == ["\"'&amp;$title{}"]


def test_the_policy_allows_this_script_and_no_other() -> None:
    html = render_trace_page(one_step([0]), ToyTokenizer())
    assert re.search(r"default-src 'none'; .*script-src 'sha256-[\w+/=]+'", html)
    assert not re.search(r"(src|href)=|url\(|@import", html)


def test_guides_show_in_the_candidates() -> None:
    data = page_data(generate(guides=[Forbid()]), ToyTokenizer())
    visits = [visit for step in data["steps"] for visit in step["visits"]]
    guided = [visit for visit in visits if visit["guided"] is not None]
    assert guided
    struck = [row for visit in guided for row in visit["raw"] if len(row) == 3]
    assert {row[2] for row in struck} <= {"forbidden", "out"}
    places = [visit for i, visit in enumerate(visits) if i % 4 == 1]
    assert all(visit["raw"][0][2] == "forbidden" for visit in places)
    assert ONLY_CHOICE in [source["name"] for source in data["sources"]]


def test_what_guides_did_is_not_overstated() -> None:
    raw = [(1, -0.5), (2, -1.0), (3, -2.0)]
    assert fates_under_guides(raw, [(2, -0.3), (3, -1.3), (4, -3.0)]) == {1: "forbidden"}
    assert fates_under_guides(raw, [(2, -0.3), (3, -2.0), (4, -3.0)]) == {1: "out"}
    assert fates_under_guides(raw, [(7, -0.3), (8, -2.0), (9, -3.0)]) == dict.fromkeys((1, 2, 3), "out")
    assert fates_under_guides(raw, [(3, 0.0), (1, -torch.inf), (2, -torch.inf)]) == dict.fromkeys(
        (1, 2), "forbidden"
    )


def one_step(tokens: list[int], kept: int | None = None, visits: list[Visit] | None = None) -> Completion:
    """A step that drafted ``tokens`` as a chain; the output is its first ``kept`` tokens."""
    path = list(range(len(tokens)))
    if visits is None:
        visits = [Visit(i, [(t, -0.1)], None, t, "ngram", -0.1) for i, t in enumerate(tokens)]
    step = StepTrace([0, *tokens], [-1, *path], [1.0] * (len(tokens) + 1), "ngram", path, visits)
    guarantee = Guarantee(False, "approximate: <b>")
    return Completion([0], tokens[:kept], guarantee=guarantee, stats=Stats(), trace=Trace(steps=[step]))


def test_a_draft_that_ends_the_text_is_kept() -> None:
    # The walk takes an end token without going down to its node.
    step = page_data(one_step([0, 1, 14]), ToyTokenizer())["steps"][0]
    assert step["kept"] == [0, 1, 2, 3]


def test_tokens_cut_off_by_a_stop_string_belong_to_their_step_only() -> None:
    completion = one_step([0, 1, 12], kept=1)
    data = page_data(completion, ToyTokenizer())
    assert data["steps"][0]["count"] == 1
    assert [visit["token"] for visit in data["steps"][0]["visits"]] == [0, 1, 12]
    assert data["sources"][1]["count"] == 1


def test_a_verifier_that_skips_nodes_leaves_gaps_not_faults() -> None:
    first = Visit(0, [(0, -0.1)], None, 0, "ngram", -0.1)
    data = page_data(one_step([0, 1, 2], visits=[first]), ToyTokenizer())
    visits = data["steps"][0]["visits"]
    assert [visit["token"] for visit in visits] == [0, 1, 2]
    assert [visit["logp"] for visit in visits] == [-0.1, None, None]


def test_a_judge_has_a_colour_of_its_own() -> None:
    visit = Visit(0, [(0, -0.1)], None, 1, "judge", -3.0)
    data = page_data(one_step([1], visits=[visit]), ToyTokenizer())
    assert [source["hue"] for source in data["sources"]] == ["target", "draft1", "judge"]


def test_characters_of_several_tokens_are_put_together() -> None:
    assert shares([b"a\xf0\x9f", b"\x8c\x8a", b"", b"b\xff"]) == ["a🌊", "", "", "b\udcff"]
    assert visible(b" a\xe2\x80") == "␣a⟨E2 80⟩"
    assert visible(b"") == "⟨empty⟩"
    assert to_html("a  b\udce2\udc80\u2029\n") == (
        'a<b class="spaces">  </b>b<b class="odd">⟨E2 80⟩</b><b class="odd">⟨U+2029⟩</b>'
        '<b class="line"></b>\n'
    )


def test_without_a_trace_or_with_a_foreign_one_it_says_so() -> None:
    with pytest.raises(BadInput, match="trace=True"):
        render_trace_page(generate(trace=False), None)
    completion = one_step([0])
    completion.tokens += [1, 2]
    with pytest.raises(BadInput, match="covers 1 of 3"):
        render_trace_page(completion, None)


def test_no_tokenizer_shows_numbers() -> None:
    assert Page(render_trace_page(one_step([3, 5]), None)).spans == [["#3 "], ["#5 "]]


def test_two_thousand_tokens_stay_small() -> None:
    candidates = [(token, -1.2345 - token) for token in range(5)]
    visit = Visit(0, candidates, candidates, 2, "target", -3.2345)
    step = StepTrace([1] * 9, [-1, *range(8)], [0.123] * 9, "ngram", [0], [visit])
    steps = [step] * 2000
    completion = Completion([0], [2] * 2000, stats=Stats(), trace=Trace(steps=steps))
    assert len(render_trace_page(completion, ToyTokenizer()).encode()) < 1_500_000


def test_the_file_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    assert write_trace_page(one_step([0]), ToyTokenizer(), path) == path
    before = path.read_bytes()
    assert before.endswith(b"</html>\n")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_trace_page(one_step([0, 1]), ToyTokenizer(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough(scheme: str) -> None:
    css = files("ventris.trace_page").joinpath("base.css").read_text(encoding="utf-8")
    light, dark = css.split("@media screen", 1)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light if scheme == "light" else dark))
    grounds = [colours["ground"], colours["card"], colours["sunk"]]
    tints = [value for name, value in colours.items() if name.endswith("-tint")]
    hues = [colours[name.removesuffix("-tint")] for name in colours if name.endswith("-tint")]
    assert len(tints) == 11
    for pairs in (
        [(colours["text"], ground) for ground in grounds + tints],
        [(colours["muted"], ground) for ground in [*grounds, colours["target-tint"]]],
        [(colours["accent"], colours["card"]), (colours["judge"], colours["card"])],
        # A token under the pointer is written in the card's colour on its hue, and so is the badge's word.
        [(colours["card"], hue) for hue in hues],
    ):
        for one, other in pairs:
            assert contrast(one, other) >= 4.5, (scheme, one, other)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

FAULTS = """
<script>window.faults = []; addEventListener("error", (event) => faults.push(event.message));</script>
"""
# Goes through every step by the keyboard, points at every token, and writes down what it saw.
PROBE = """
<script>
const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
press("Home"); press("Enter");
const count = JSON.parse(document.getElementById("trace-data").textContent).steps.length;
const seen = new Set();
for (let i = 0; i < count; i += 1) {
  seen.add(document.querySelector("#step h2").textContent);
  press("ArrowRight");
}
const hash = location.hash;
for (const token of document.querySelectorAll(".t")) {
  token.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
}
const tip = document.getElementById("tip").textContent;
document.querySelector(".key").click();
press("Escape");
document.body.dataset.probe = JSON.stringify({
  faults, seen: seen.size, hash, tip, images: document.images.length,
  faded: document.querySelectorAll(".faded").length, closed: document.getElementById("step").className,
});
</script>
"""


def in_browser(html: str, folder: Path) -> str:
    page = folder / "page.html"
    page.write_text(html, encoding="utf-8")
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900",
        "--virtual-time-budget=3000", "--dump-dom",
    ]  # fmt: skip
    # A file, since the browser's helpers could hold a pipe open after a timeout.
    with (folder / "dom").open("w") as out:
        subprocess.run(
            [*command, page.as_uri() + "#step-2"], stdout=out, stderr=subprocess.DEVNULL, timeout=90
        )
    return (folder / "dom").read_text(encoding="utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to run the page's script in")
@pytest.mark.parametrize("settings", [{"guides": [Forbid()]}, {"drafted": False}, {"temperature": 0.9}])
def test_the_script_runs_in_a_browser(settings: dict[str, Any], tmp_path: Path) -> None:
    completion = generate(max_new_tokens=24, **settings)
    html = render_trace_page(completion, ToyTokenizer())
    assert completion.trace is not None
    untouched = in_browser(html, tmp_path)
    assert 'data-ready="yes"' in untouched, "the page's own policy must let its script run"
    assert f"Step 2 of {len(completion.trace.steps)}" in untouched
    # The probe is a foreign script, which the page's policy would rightly stop.
    open_html = re.sub(r"<meta http-equiv.*?>\n", "", html, flags=re.DOTALL)
    open_html = open_html.replace("<title>", FAULTS + "<title>").replace("</body>", PROBE + "</body>")
    found = re.search(r'data-probe="([^"]*)"', in_browser(open_html, tmp_path))
    assert found, "the probe did not come to its end"
    probe = json.loads(unescape(found[1]))
    assert probe["faults"] == []
    assert probe["seen"] == len(completion.trace.steps)
    assert probe["hash"] == f"#step-{len(completion.trace.steps)}"
    assert "step" in probe["tip"]
    assert probe["images"] == 0
    assert "closed" in probe["closed"]
    expected = page_data(completion, ToyTokenizer())["sources"][0]["count"]
    assert probe["faded"] == expected
