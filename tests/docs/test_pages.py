"""The pages: every Python block runs, every relative link leads somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(r"^```(\w[^\n]*)?\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str) -> list[tuple[str, str]]:
    """Info string and code of every fenced Python block, the code at its own line numbers."""
    found = []
    for match in BLOCK.finditer(text):
        info = (match.group(1) or "").strip()
        if info.split()[:1] == ["python"]:
            line = text.count("\n", 0, match.start(2))
            found.append((info, "\n" * line + match.group(2)))
    return found


def anchors(text: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = ModuleType(f"page_{page.stem.replace('-', '_')}")
    # Data classes and pydantic look up a class's module by name.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    for info, code in blocks(page.read_text("utf-8")):
        compiled = compile(code, page.name, "exec", dont_inherit=True)
        if "no-run" not in info.split():
            exec(compiled, vars(module))


@pytest.mark.parametrize("page", ALL_PAGES, ids=name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for groups in LINK.findall(BLOCK.sub("", text)):
        link = next(filter(None, groups))
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link} in {name(page)} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text("utf-8")), f"{link} in {name(page)}: no such heading"


def test_blocks_are_found() -> None:
    text = "a\n```python no-run\nx = 1\n```\n```toml\ny\n```\n```python\nz\n```\n"
    assert blocks(text) == [("python no-run", "\n\nx = 1\n"), ("python", "\n" * 8 + "z\n")]
