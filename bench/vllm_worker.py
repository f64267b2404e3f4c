"""Answers prompts in vLLM, with or without a draft head; run by ``vllm_accepts_exports.py``.

It is run by the Python of an environment that holds vLLM and not Ventris:

    python bench/vllm_worker.py JOB.json ANSWERS.json

The job names the model's folder, the conversations, and the draft head if there is one. Written are the token
ids of each prompt and answer, the texts, and vLLM's own counters of drafted and accepted tokens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams

_DRAFTS = "vllm:spec_decode_num_drafts"
_DRAFTED = "vllm:spec_decode_num_draft_tokens"
_ACCEPTED = "vllm:spec_decode_num_accepted_tokens"
_BY_DEPTH = "vllm:spec_decode_num_accepted_tokens_per_pos"


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Decode every conversation of a job greedily, one at a time."""
    engine = LLM(
        job["model"],
        dtype=job["dtype"],
        max_model_len=job["context_length"],
        max_num_seqs=1,
        enforce_eager=True,
        # One process: the usual ones wait for each other in busy loops, which two cores cannot spare.
        distributed_executor_backend="uni",
        speculative_config=job["drafter"],
        disable_log_stats=False,
    )
    wanted = SamplingParams(temperature=0.0, max_tokens=job["max_new_tokens"])
    answers = engine.chat(job["conversations"], wanted, use_tqdm=False)
    counters = {metric.name: metric for metric in engine.get_metrics()}
    found: dict[str, Any] = {
        "prompts": [answer.prompt_token_ids for answer in answers],
        "tokens": [list(answer.outputs[0].token_ids) for answer in answers],
        "texts": [answer.outputs[0].text for answer in answers],
    }
    if job["drafter"]:
        found["drafts"] = counters[_DRAFTS].value
        found["drafted"] = counters[_DRAFTED].value
        found["accepted"] = counters[_ACCEPTED].value
        found["accepted_by_depth"] = counters[_BY_DEPTH].values
    return found


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(answer(json.loads(Path(sys.argv[1]).read_text()))))
