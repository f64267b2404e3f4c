"""The page with the embedded model, and the picture of it that the docs show."""

from __future__ import annotations

from pathlib import Path

import pytest

import ventris
from tests.playground.browser import Browser
from tests.playground.test_page import answer, ask, choose, opened
from tests.serve.running import running
from ventris.engine.errors import VentrisError

pytestmark = pytest.mark.long

QUESTION = (
    "Rewrite this with the word 'river' in place of 'stream': The stream is cold. The stream is deep. "
    "The stream runs from the hills to the sea, and the stream never stops."
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_configurations_side_by_side(
    browser: Browser, pictures: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        model = ventris.load(dtype="float32")
    except VentrisError as error:
        pytest.skip(f"the embedded model cannot be loaded here: {error}")
    browser.shape(1360, 960, scheme, scale=1.5)
    monkeypatch.setattr("tests.serve.running.NAME", "smollm2-135m-instruct")
    with running(model) as server:
        server.service.prepare_parts()
        opened(browser, server, max_tokens=70)
        browser.run("document.getElementById('compare').click()")
        choose(browser, "policy-B", "fixed")
        ask(browser, QUESTION)
        assert answer(browser, 0) == answer(browser, 1) != ""
        # The step that gained most shows what drafting is about.
        browser.run(
            "(() => { const spans = [...document.querySelectorAll('.lane:last-child .t')];"
            "const best = spans[0].steps.reduce((top, step, i, all) =>"
            " step.count > all[top].count ? i : top, 0);"
            "spans.find((span) => span.step === best).click(); })()"
        )
        image = browser.picture(pictures / f"playground-model-{scheme}.png", whole=True)
    assert len(image) > 20_000
