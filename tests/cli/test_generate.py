"""``ventris generate``: what is printed, where, and under which settings."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from conftest import Run

from ventris.model import Model

SHORT = ("--max-new-tokens", "12", "--ignore-eos")


class FakeStdin(io.StringIO):
    """Piped text; ``terminal=True`` pretends that somebody sits there."""

    def __init__(self, text: str, terminal: bool = False) -> None:
        super().__init__(text)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def test_a_prompt_needs_no_command(run: Run, tiny_model: Model) -> None:
    expected = tiny_model.generate("hello", max_new_tokens=12, ignore_eos=True).text
    named = run("generate", "hello", *SHORT)
    unnamed = run("hello", *SHORT)
    assert (named.code, named.out) == (0, expected + "\n")
    assert unnamed.out == named.out
    assert unnamed.err == ""


def test_options_may_stand_before_the_prompt(run: Run) -> None:
    assert run(*SHORT, "hello").out == run("hello", *SHORT).out


def test_a_prompt_that_looks_like_a_command_is_asked_about(run: Run) -> None:
    ran = run("paper")
    assert ran.code == 2
    assert "did you mean 'papers'" in ran.err


@pytest.mark.parametrize("arguments", [("-",), ("generate",), ("generate", "-")])
def test_stdin_is_the_prompt(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.setattr(sys, "stdin", FakeStdin("hello\n"))
    assert run(*arguments, *SHORT).out == run("hello", *SHORT).out


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_prompt_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", FakeStdin(text))
    ran = run("-")
    assert (ran.code, ran.err) == (2, "ventris: error: the prompt is empty\n")


def test_without_a_prompt_a_terminal_is_told_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", FakeStdin("", terminal=True))
    ran = run("generate")
    assert ran.code == 2
    assert "there is no prompt" in ran.err


def test_json_holds_everything(run: Run, tiny_model: Model) -> None:
    ran = run("hello", *SHORT, "--json", "--logprobs", "2", "--draft", "ngram", "--policy", "fixed")
    answer = ran.json
    expected = tiny_model.generate("hello", max_new_tokens=12, ignore_eos=True)
    assert answer["text"] == expected.text
    assert answer["tokens"] == expected.tokens
    assert answer["finish_reason"] == "length"
    assert answer["guarantee"]["exact"] is True
    assert answer["guarantee"]["statement"].startswith("exact")
    assert answer["stats"]["new_tokens"] == 12
    assert {"tokens_per_second", "tokens_per_step", "acceptance"} <= set(answer["stats"])
    assert [entry["token"] for entry in answer["logprobs"]] == expected.tokens
    assert "".join(entry["text"] for entry in answer["logprobs"]) == expected.text
    assert all(len(entry["top"]) == 2 and entry["logprob"] <= 0 for entry in answer["logprobs"])
    assert ran.out.count("\n") == 1


def test_log_probabilities_need_json(run: Run, loads: list[object]) -> None:
    ran = run("hello", "--logprobs", "2")
    assert ran.code == 2
    assert "--json" in ran.err
    assert not loads


def test_statistics_go_to_stderr(run: Run) -> None:
    plain = run("hello", *SHORT)
    with_stats = run("hello", *SHORT, "--stats", "--draft", "ngram", "--policy", "fixed")
    assert with_stats.out == plain.out
    assert with_stats.err.startswith("12 tokens · ")
    assert "tokens per pass" in with_stats.err
    assert "exact" in with_stats.err
    assert with_stats.err.count("\n") == 1


def test_a_file_gives_settings_and_options_go_before_it(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(
        "max-new-tokens: 5\nignore_eos: true\ntemperature: 0.8\nseed: 3\nverifier: coupled\n"
        "draft: {ngram: {max_nodes: 2}}\npolicy: fixed\n"
    )
    by_file = run("hello", "--config", str(config), "--json").json
    by_options = run(
        "hello", "--max-new-tokens", "5", "--ignore-eos", "--temperature", "0.8", "--seed", "3", "--json"
    ).json
    assert by_file["tokens"] == by_options["tokens"]
    overridden = run("hello", "--config", str(config), "--max-new-tokens", "7", "--json").json
    assert len(overridden["tokens"]) == 7
    assert overridden["tokens"][:5] == by_file["tokens"]


def test_a_file_chooses_the_model(run: Run, loads: list[tuple[object, ...]], tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("model: some/where\ndtype: float32\nthreads: 2\nstop: [x, y]\n")
    assert run("hello", "--config", str(config), "--dtype", "int8", *SHORT).code == 0
    assert loads[0][:5] == ("some/where", "int8", "auto", "auto", 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("max_new_token: 3", "there is no setting 'max_new_token'"),
        ("temperature: -1", "temperature is -1"),
        ("a: [", "is no YAML in line 1"),
        ("just text", "holds no settings"),
        ("threads: 0", "threads is 0"),
        ("draft: {ngram: {max_node: 8}}", "'ngram' has no option 'max_node'"),
    ],
)
def test_a_bad_file_is_one_line(
    run: Run, loads: list[object], tmp_path: Path, content: str, said: str
) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(content)
    ran = run("hello", "--config", str(config))
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert not loads


def test_repeated_and_mapped_options(run: Run) -> None:
    free = run("hello", *SHORT, "--json").json
    first = free["tokens"][0]
    biased = run("hello", *SHORT, "--json", "--logit-bias", f"{first}=-100").json
    assert biased["tokens"][0] != first
    ended = run("hello", *SHORT, "--json", "--stop-id", str(free["tokens"][3])).json
    assert ended["finish_reason"] == "stop"
    cut = run("hello", *SHORT, "--json", "--stop", free["text"][2], "--stop", "zzz").json
    assert cut["text"] == free["text"][: free["text"].index(free["text"][2])]
    wrong = run("hello", "--logit-bias", "7")
    assert (wrong.code, "write ID=X" in wrong.err) == (2, True)


def test_a_system_message_stands_before_the_prompt(run: Run, tiny_model: Model) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    expected = tiny_model.generate(messages, max_new_tokens=12, ignore_eos=True).tokens
    assert run("hello", *SHORT, "--system", "Be brief.", "--json").json["tokens"] == expected
    assert run("hello", "--system", "Be brief.", "--raw").code == 2


def test_the_trace_is_a_page(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("ventris.trace_page")
    page = tmp_path / "trace.html"
    assert run("hello", *SHORT, "--trace", str(page)).code == 0
    assert "<html" in page.read_text()


def test_a_trace_that_cannot_be_written_is_found_before_loading(run: Run, loads: list[object]) -> None:
    ran = run("hello", "--trace", "no/such/folder/trace.html")
    assert (ran.code, "there is no folder" in ran.err) == (2, True)
    ran = run("hello", "--trace", ".")
    assert (ran.code, "it is a folder; name a file" in ran.err) == (2, True)
    assert not loads


def test_an_answer_does_not_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from ventris.cli.streams import write_text

    screen, pipe = FakeStdin("", terminal=True), FakeStdin("")
    for stream in (screen, pipe):
        monkeypatch.setattr(sys, "stdout", stream)
        write_text("a\x1b[2Jb\n\tc é")
    assert screen.getvalue() == "a[2Jb\n\tc é"
    assert pipe.getvalue() == "a\x1b[2Jb\n\tc é"
