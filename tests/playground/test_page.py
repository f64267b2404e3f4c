"""The page in a browser: what a person asks for and sees."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from tests.playground.browser import Browser
from tests.serve.running import Running, running, wait_until
from ventris.engine.batch import Engine
from ventris.model import Model

HELLO = [{"role": "user", "content": "hello there hello there"}]
IDLE = "document.documentElement.dataset.busy === 'no'"
KEY = "a-long-enough-key"


def opened(browser: Browser, server: Running, **fields: Any) -> None:
    """Open the page and set some of its fields by their ids."""
    browser.go(f"{server.url}/")
    browser.wait("document.documentElement.dataset.ready")
    for name, value in fields.items():
        choose(browser, name.replace("_", "-"), value)


def choose(browser: Browser, field: str, value: object) -> None:
    browser.run(
        f"(() => {{ const field = document.getElementById('{field}'); field.value = {value!r};"
        "field.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def ask(browser: Browser, text: str) -> None:
    """Type a message, send it with the keyboard, and wait for the end of the answer."""
    browser.run("document.getElementById('prompt').focus()")
    browser.type(text)
    browser.press("Enter")
    browser.wait(f"document.getElementById('prompt').value === '' && {IDLE}")


def answer(browser: Browser, number: int = -1) -> str:
    """The coloured text of an answer."""
    found: str = browser.run(
        "[...[...document.querySelectorAll('.answer')].at("
        f"{number}).querySelectorAll('.t')].map((span) => span.textContent).join('')"
    )
    return found


def test_an_answer_is_coloured_by_its_sources(browser: Browser, server: Running, model: Model) -> None:
    opened(browser, server, max_tokens=60, policy_only="fixed")
    ask(browser, HELLO[0]["content"])
    expected = model.generate(HELLO, max_new_tokens=60, draft="ngram", policy="fixed")
    assert answer(browser) == expected.text
    hues = browser.run("[...document.querySelectorAll('.answer .t')].map((span) => span.classList[1])")
    assert set(hues) <= {"h-target", "h-draft1"}
    assert "h-target" in hues
    shown = browser.run("[...document.querySelectorAll('#legend .key')].map((key) => key.textContent)")
    assert shown[0] == "the target's own pick"
    assert ("accepted draft: ngram" in shown) == (expected.stats.drafted > 0)
    figures = browser.run("[...document.querySelectorAll('.figures b')].map((b) => b.textContent)")
    # A dash stands where nothing is known; tokens per second, tokens per pass and the first token are.
    assert all(re.match(r"[0-9]", figures[k]) for k in (0, 1, 3))
    assert browser.run("document.querySelector('.badge b').textContent") == "exact"
    assert browser.run("document.querySelectorAll('.step-view svg .node').length") >= 1
    heading = browser.run("document.querySelector('.step-view h3').textContent")
    assert re.fullmatch(rf"Step {expected.stats.steps} of {expected.stats.steps}", heading)


def test_the_conversation_goes_on_and_begins_anew(browser: Browser, server: Running, model: Model) -> None:
    opened(browser, server, max_tokens=12)
    ask(browser, "hello")
    ask(browser, "more")
    first = model.generate([{"role": "user", "content": "hello"}], max_new_tokens=12)
    history = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "more"},
    ]
    assert answer(browser) == model.generate(history, max_new_tokens=12).text
    browser.run("document.getElementById('clear').click()")
    ask(browser, "hello")
    assert answer(browser) == first.text


def test_steps_are_walked_by_the_keyboard(browser: Browser, server: Running) -> None:
    opened(browser, server, max_tokens=20)
    ask(browser, "hello")
    browser.run("document.querySelector('.log').focus()")
    browser.press("Home")
    assert browser.run("document.querySelector('.step-view h3').textContent").startswith("Step 1 of ")
    assert browser.run("document.querySelectorAll('.t.current').length") >= 1
    browser.press("ArrowRight")
    assert browser.run("document.querySelector('.step-view h3').textContent").startswith("Step 2 of ")


def test_two_configurations_answer_one_prompt(
    browser: Browser, server: Running, model: Model, pictures: Path
) -> None:
    opened(browser, server, max_tokens=40)
    browser.run("document.getElementById('compare').click()")
    assert browser.run("[...document.querySelectorAll('.lane')].length") == 2
    assert browser.run("document.getElementById('drafter-A').value") == "none"
    assert browser.run("document.getElementById('drafter-B').value") == "ngram"
    ask(browser, HELLO[0]["content"])
    expected = model.generate(HELLO, max_new_tokens=40).text
    assert answer(browser, 0) == answer(browser, 1) == expected
    told = browser.run("document.getElementById('verdict').textContent")
    assert "times as many tokens a second" in told
    assert "both texts are the same" in told
    browser.run("document.getElementById('together').click()")
    ask(browser, "again")
    assert "They ran at once" in browser.run("document.getElementById('verdict').textContent")
    # Side by side needs room; without it they stand one below the other, and nothing sticks out.
    browser.shape(400, 900)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    browser.picture(pictures / "playground-two-400.png", whole=True)


def test_a_guide_keeps_its_form(browser: Browser, server: Running) -> None:
    opened(browser, server, guide_only="choice", max_tokens=20)
    assert browser.run("document.getElementById('rule-only').value") == "yes\nno"
    ask(browser, "well?")
    assert answer(browser) in ("yes", "no")
    # After the first letter nothing else was allowed, so the guide drafts the rest.
    hues = browser.run("[...document.querySelectorAll('.answer .t')].map((span) => span.classList[1])")
    assert hues[0] == "h-target"
    assert "h-target" not in hues[1:]


def test_escape_stops_an_answer_for_the_server_too(
    browser: Browser, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiny model alone would be through with its answer before a busy browser comes to the key.
    step = Engine.step
    monkeypatch.setattr(Engine, "step", lambda engine: (sleep(0.03), step(engine))[1])
    opened(browser, server, max_tokens=15_000)
    browser.run("document.getElementById('prompt').focus()")
    browser.type("hello")
    browser.press("Enter")
    browser.wait("document.querySelectorAll('.answer .t').length > 3")
    browser.press("Escape")
    browser.wait(IDLE)
    assert "(stopped)" in browser.run("document.querySelector('.answer').textContent")
    wait_until(lambda: server.service.scheduler.idle)


def test_errors_are_shown_as_text(browser: Browser, server: Running) -> None:
    opened(browser, server, guide_only="regex", rule_only="(<img src=x>")
    ask(browser, "<img src=x onerror=alert(1)><b>bold</b>")
    told = browser.run("document.querySelector('.answer [role=alert]').textContent")
    assert "regex" in told
    assert browser.run("document.querySelector('.said').textContent").startswith("<img src=x")
    assert browser.run("document.images.length + document.querySelectorAll('.log b').length") == 0
    choose(browser, "guide-only", "")
    choose(browser, "temperature", 7)
    browser.run("document.getElementById('prompt').focus()")
    browser.type("hello")
    browser.press("Enter")
    browser.wait("!document.getElementById('trouble').hidden")
    assert browser.run("document.getElementById('trouble').textContent").startswith("Temperature: ")


def test_a_server_that_is_gone_is_said(browser: Browser, model: Model) -> None:
    with running(model) as server:
        opened(browser, server)
    ask(browser, "hello")
    assert browser.run("document.querySelector('.answer [role=alert]').textContent")


def test_the_key_is_asked_for(browser: Browser, model: Model) -> None:
    with running(model, keys=(KEY,)) as server:
        browser.go(f"{server.url}/")
        browser.wait("!document.getElementById('key-form').hidden")
        for key in ("wrong", KEY):
            browser.run("document.getElementById('key').focus(); document.getElementById('key').value = ''")
            browser.type(key)
            browser.press("Enter")
            if key == "wrong":
                browser.wait("!document.getElementById('trouble').hidden")
        browser.wait("document.documentElement.dataset.ready")
        assert browser.run("document.getElementById('key-form').hidden")
        choose(browser, "max-tokens", 5)
        ask(browser, "hello")
        assert len(answer(browser)) > 0


CASES = [
    ([("a b", ["a", " b"])], [("a", "x"), (" b", "x")]),
    # A stop string may begin here, so the text is held back while its tokens are known.
    ([("", ["a", "b"]), ("ab", [])], [("a", "x"), ("b", "x")]),
    ([("a", ["ab"]), ("b", [])], [("ab", "x")]),
    # Parts of one character, with a known token behind them, before them, and on both sides.
    ([("é!", ["\ufffd", "\ufffd", "!"])], [("é", "x"), ("!", "x")]),
    ([("a", ["a", "\ufffd"]), ("é", ["\ufffd"])], [("a", "x"), ("é", "x")]),
    # What a stop string cut off never gets text.
    ([("a", ["a", "b"])], [("a", "x")]),
    # Should tokens and text ever differ, the text wins.
    ([("abc", ["x", "y"])], [("abc", "x")]),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_text_and_tokens_are_brought_together(browser: Browser, server: Running, case: int) -> None:
    if browser.run("typeof Pieces") == "undefined":
        opened(browser, server)
    chunks, expected = CASES[case]
    sent = [[text, [{"text": token, "source": "x"} for token in tokens]] for text, tokens in chunks]
    found = browser.run(
        f"(() => {{ const pieces = new Pieces(); return [...{sent!r}.flatMap(([text, tokens]) =>"
        " pieces.push(text, tokens, 0)), ...pieces.finish()].map(({text, source}) => [text, source]); })()"
    )
    assert [tuple(pair) for pair in found] == expected


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1360, 900), (400, 900)])
def test_pictures(
    browser: Browser, server: Running, pictures: Path, scheme: str, width: int, height: int
) -> None:
    browser.shape(width, height, scheme)
    opened(browser, server, max_tokens=80, policy_only="fixed")
    ask(browser, "abc abc abc abc")
    image = browser.picture(pictures / f"playground-{scheme}-{width}.png", whole=width < 500)
    assert len(set(pixels(image))) > 20
    # Nothing sticks out at the side.
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def pixels(png: bytes) -> bytes:
    """Raw data of a PNG, filters and all: enough to see that something was drawn."""
    place, data = 8, b""
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += length + 12
    return zlib.decompress(data)
