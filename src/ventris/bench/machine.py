"""The machine: what it is, which of its threads we use, and who else is busy on it."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from time import perf_counter

from ventris.bench.record import Load

BUSY_CORES = 0.1
"""Cores used by others from which a timing deserves a warning."""

_PACKAGES = (
    *("ventris", "torch", "transformers", "llama-cpp-python", "numpy"),
    *("llguidance", "xgrammar", "outlines-core", "jsonschema", "jsonschema-rs"),
)


def available_cores() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def bound_threads(threads: int) -> Iterator[None]:
    """Keep this thread, and those it starts meanwhile, on ``threads`` CPUs.

    Fewer threads than CPUs wander between them otherwise, and every runtime wanders differently.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class LoadWatch:
    """Measures how much of the machine others use while it is open."""

    def __init__(self) -> None:
        self._before = _load_average()
        self._started = perf_counter()
        self._busy = _Busy.now()

    def finish(self) -> Load:
        """The load since the beginning."""
        after, seconds = _Busy.now(), perf_counter() - self._started
        load = Load(before=self._before, after=_load_average())
        if after is not None and self._busy is not None and seconds > 0:
            load.other_cores = round(max(after.others - self._busy.others, 0.0) / seconds, 3)
            load.stolen_cores = round(max(after.stolen - self._busy.stolen, 0.0) / seconds, 3)
        return load


def load_warnings(load: Load) -> list[str]:
    """Sentences for figures that were taken on a busy machine."""
    warnings = []
    if load.other_cores is not None and load.other_cores > BUSY_CORES:
        warnings.append(
            f"another process was busy: others used {load.other_cores:.1f} cores on average while this was "
            "measured; tokens/s are too low, and ratios are less certain"
        )
    if load.stolen_cores is not None and load.stolen_cores > BUSY_CORES:
        warnings.append(
            f"the hypervisor took {load.stolen_cores:.1f} cores away on average; tokens/s are too low"
        )
    return warnings


@dataclass(frozen=True, slots=True)
class _Busy:
    """CPU seconds since the start of the machine."""

    others: float
    stolen: float

    @classmethod
    def now(cls) -> _Busy | None:
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        except OSError:
            return None
        user, nice, system, _idle, _wait, irq, soft, stolen = (int(field) for field in fields[:8])
        tick = os.sysconf("SC_CLK_TCK")
        own = sum(os.times()[:4])
        return cls((user + nice + system + irq + soft) / tick - own, stolen / tick)


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def processor() -> str:
    """Name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def system() -> str:
    """Operating system and interpreter."""
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"


def memory_bytes() -> int | None:
    """Main memory of the machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def versions() -> dict[str, str]:
    """Versions of the packages that the figures depend on, as far as they are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name == "ventris":
                from ventris import __version__

                found[name] = __version__
    return found


def commit() -> str | None:
    """The commit of a source checkout, with ``+`` where files were changed; ``None`` elsewhere."""
    folder = Path(__file__).parent
    try:
        tracked = _git(folder, "ls-files", "--error-unmatch", "../__init__.py")
        name = _git(folder, "rev-parse", "--short", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{name}+" if tracked and changed else name


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
