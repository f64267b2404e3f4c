"""Compile the native library at first use, and keep it in the user's cache folder."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ventris.engine.errors import VentrisError
from ventris.models.native import abi

SOURCES = Path(__file__).parent
FLAGS = (
    "-O3",
    "-std=c++20",
    "-shared",
    "-fPIC",
    "-pthread",
    # Fusing a product and a sum at the compiler's discretion would make a result depend on its surroundings.
    "-ffp-contract=off",
    "-w",
)
BUILD_SECONDS = 300


class NativeUnavailable(VentrisError):
    """The native runtime cannot be built here; models run on torch instead."""


def cache_folder() -> Path:
    """Where compiled libraries are kept: ``$VENTRIS_CACHE``, else the user's cache folder."""
    if chosen := os.environ.get("VENTRIS_CACHE"):
        return Path(chosen) / "native"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ventris" / "native"


def find_compiler() -> str:
    """Path of the C++ compiler: ``$CXX``, else the first of the usual names.

    Raises:
        NativeUnavailable: if there is none.
    """
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    raise NativeUnavailable(
        "no C++ compiler found: install g++ or clang++, or set CXX, for the native runtime"
    )


def _cpu_features() -> str:
    """What ``-march=native`` depends on, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    keys = ("flags", "Features", "model name")
    return "\n".join(next((line for line in lines if line.startswith(key)), "") for key in keys)


def _key(compiler: str, flags: Sequence[str]) -> str:
    digest = hashlib.sha256()
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    for part in (version, _cpu_features().encode(), " ".join(flags).encode()):
        digest.update(part + b"\0")
    for source in sorted((*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h"))):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:20]


def _compile(compiler: str, flags: Sequence[str], library: Path) -> None:
    partial = library.with_name(f"{library.name}.{os.getpid()}")
    command = [compiler, *flags, *map(str, sorted(SOURCES.glob("*.cpp"))), "-o", str(partial)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        if result.returncode:
            lines = [line for line in result.stderr.splitlines() if "error" in line] or ["no message"]
            raise NativeUnavailable(f"{compiler} could not compile the native runtime: {lines[0].strip()}")
        partial.replace(library)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NativeUnavailable(f"{compiler} could not compile the native runtime: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def build(extra_flags: Sequence[str] = ("-march=native",)) -> Path:
    """Path of the compiled library, compiled now if the cache has none for these sources, flags and CPU.

    Raises:
        NativeUnavailable: if there is no compiler, or it fails.
    """
    compiler = find_compiler()
    flags = (*FLAGS, *extra_flags)
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        library = folder / f"ventris-{_key(compiler, flags)}.so"
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not library.exists():
                _compile(compiler, flags, library)
    except OSError as error:
        raise NativeUnavailable(f"cannot keep the native runtime in {cache_folder()}: {error}") from error
    return library


@functools.cache
def load_library(extra_flags: tuple[str, ...] = ("-march=native",)) -> ctypes.CDLL:
    """The native library, compiled if need be.

    Raises:
        NativeUnavailable: if it cannot be compiled or loaded.
    """
    path = build(extra_flags)
    try:
        return abi.declare(ctypes.CDLL(str(path)))
    except OSError as error:
        raise NativeUnavailable(f"cannot load the native runtime: {error}") from error
