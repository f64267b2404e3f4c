"""The budget against the process: what the system says it took, with the embedded model. Takes minutes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.long

TALK = """
import json, sys
from pathlib import Path

import ventris
from ventris.engine.errors import VentrisError
from ventris.engine.footprint import weight_bytes


def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


try:
    probe = ventris.load(dtype="int4")
except VentrisError as error:
    print(json.dumps({"skipped": str(error)}))
    sys.exit()
budget = None if sys.argv[1] == "none" else weight_bytes([probe.target]) + int(sys.argv[1])
# Code and tables that a first request loads are no part of generation, and neither is the cost curve.
probe.generate("Hello", max_new_tokens=8, draft="ngram")
model = ventris.Model(probe.target, probe.tokenizer, probe.source, memory_budget=budget)
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
chat = model.chat(draft="ngram", policy="fixed", max_new_tokens=48)
said = [chat.say(f"Tell me {n} facts about the sea, and nothing else.").tokens for n in range(2, 10)]
batch = model.generate([f"Say {n} in French." for n in range(12)], max_new_tokens=24, draft="ngram",
                       policy="fixed")
print(json.dumps({
    "took": resident("VmHWM") - before,
    "answers": [said, [done.tokens for done in batch]],
    "errors": [done.error for done in batch if done.error],
    "drafted": sum(done.stats.drafted for done in batch),
}))
"""

SLACK = 8_000_000
"""Python objects and the allocator's slack, which no budget counts."""


def talk(generation_bytes: int | None) -> dict:
    given = "none" if generation_bytes is None else str(generation_bytes)
    done = subprocess.run([sys.executable, "-c", TALK, given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    if "skipped" in found:
        pytest.skip(found["skipped"])
    return found


def test_a_process_stays_within_its_budget_and_says_the_same() -> None:
    free = talk(None)
    for budget in (60_000_000, 30_000_000):
        bound = talk(budget)
        assert not bound["errors"]
        assert bound["answers"] == free["answers"]
        assert bound["took"] <= budget + SLACK
