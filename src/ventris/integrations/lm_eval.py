"""A model for EleutherAI's lm-evaluation-harness (package ``lm_eval``).

The harness finds only models that are imported, so its command is run from here; all its options work:

    python -m ventris.integrations.lm_eval --model ventris --tasks arc_easy --model_args draft=ngram
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from ventris import model as models
from ventris.engine.errors import BadInput
from ventris.engine.sampling import log_probability
from ventris.engine.score import continuation_logits
from ventris.models.embedded import EMBEDDED_NAME
from ventris.prompts import Prompt

logger = logging.getLogger("ventris")

LONGEST = 2048
"""Window in tokens where no other was asked: a longer one holds as many rows of logits at once."""

SAMPLING = frozenset({"top_p", "top_k", "min_p", "repetition_penalty", "seed"})
KNOWN = frozenset({"until", "max_gen_toks", "do_sample", "temperature"})

Scored = tuple[float, bool]


@register_model("ventris")
class VentrisLM(TemplateLM):
    """Scores and generates with Ventris.

    Args:
        model: As for :func:`ventris.load`.
        draft, verifier, policy: Parts for tasks that generate; exact ones change the time and not the answer.
        batch_size: Answers written side by side.
        max_length: Window in tokens; at most the model's context.
        max_gen_toks: Longest answer where the task does not say.
        loaded: A model that is there already, instead of ``model`` and the settings that go with it.

    Raises:
        BadInput: for a name or a setting that cannot be used.
    """

    def __init__(
        self,
        model: str = EMBEDDED_NAME,
        dtype: Any = "auto",
        kernels: Any = "auto",
        device: str | None = None,
        threads: int | None = None,
        draft: str | None = None,
        verifier: str | None = None,
        policy: str | None = None,
        batch_size: int | str = 8,
        max_batch_size: int | None = None,
        max_length: int = LONGEST,
        max_gen_toks: int = 256,
        loaded: models.Model | None = None,
    ) -> None:
        super().__init__()
        self.model = loaded or models.load(str(model), dtype, kernels, device or "auto", threads)
        tokenizer = self.model.tokenizer
        if tokenizer is None:
            raise BadInput(f"{model} has no tokenizer; the harness asks in texts")
        self.words = tokenizer
        self.parts = {"draft": draft, "verifier": verifier, "policy": policy}
        self.batch_size = 8 if str(batch_size).startswith("auto") else int(batch_size)
        self.max_length = min(int(max_length), self.model.target.context_length)
        self.max_gen_toks = int(max_gen_toks)

    # Words

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return min(self.words.eos_ids)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that nothing stands before."""
        return self.words.bos_id if self.words.bos_id is not None else self.eot_token_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **further: Any) -> list[int]:
        """Token ids; of a whole prompt by default, where control tokens count as such."""
        return self.words.encode(string, special=add_special_tokens is not False)

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer and its template in caches."""
        return f"ventris-{self.words.fingerprint}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's template, for caches and logs."""
        templates = self.words.facts.chat_templates
        return templates.get(chat_template if isinstance(chat_template, str) else "default")

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text.

        Raises:
            BadInput: if the model has no template, or the last message is to be gone on with.
        """
        if not add_generation_prompt:
            raise BadInput(
                "ventris cannot go on with a message that has begun; take gen_prefix out of the task"
            )
        return self.words.chat_text(chat_history)

    # Scores

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **further: Any,
    ) -> list[Scored]:
        scored = []
        for texts, context, continuation in tqdm(requests, desc="Scoring", disable=disable_tqdm):
            answer = self._score(context, continuation)
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
            scored.append(answer)
        return scored

    def _score(self, context: Sequence[int], continuation: Sequence[int]) -> Scored:
        if not continuation:
            return 0.0, True
        if len(continuation) > self.max_length:
            raise BadInput(
                f"a continuation has {len(continuation)} tokens and the window {self.max_length}; "
                "give a larger max_length"
            )
        # The last token is predicted and never read, so one more fits.
        kept = list(context)[-(self.max_length + 1 - len(continuation)) :]
        rows = continuation_logits(self.model.target, self.model.request(kept), continuation)
        total, greedy = 0.0, True
        for row, token in zip(rows, continuation, strict=True):
            total += log_probability(row, token)
            greedy = greedy and int(row.argmax()) == token
        return total, greedy

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, each token once, in windows where a text is longer than one."""
        totals = []
        for (text,) in tqdm([request.args for request in requests], desc="Scoring", disable=disable_tqdm):
            windows = get_rolling_token_windows(
                self.tok_encode(text, add_special_tokens=False), self.prefix_token_id, self.max_length, 1
            )
            total = sum(self._score(*make_disjoint_window(window))[0] for window in windows)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
            totals.append(total)
        return totals

    # Answers

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts that go on from contexts up to a stop string, in batches of any settings."""
        texts = []
        with tqdm(total=len(requests), desc="Generating", disable=disable_tqdm) as bar:
            for start in range(0, len(requests), 8 * self.batch_size):
                part = [request.args for request in requests[start : start + 8 * self.batch_size]]
                prompts = [self._prompt(context, dict(given)) for context, given in part]
                for args, completion in zip(
                    part, self.model.generate(prompts, max_batch=self.batch_size, **self.parts), strict=True
                ):
                    if completion.exception is not None:
                        raise completion.exception
                    self.cache_hook.add_partial("generate_until", args, completion.text)
                    texts.append(completion.text)
                bar.update(len(part))
        return texts

    def _prompt(self, context: str, given: dict[str, Any]) -> Prompt:
        asked = normalize_gen_kwargs(given, self.max_gen_toks)
        if unknown := sorted(asked.keys() - KNOWN - SAMPLING):
            logger.warning("the task's %s have no effect", ", ".join(unknown))
        length = min(int(asked["max_gen_toks"]), self.max_length - 1)
        settings = {
            "max_new_tokens": length,
            "temperature": float(asked["temperature"]) if asked["do_sample"] else 0.0,
            "stop": [text for text in asked["until"] if text],
            **{name: asked[name] for name in SAMPLING & asked.keys()},
        }
        return Prompt(self.tok_encode(context)[-(self.max_length - length) :], settings)


def main() -> None:
    """The harness's own command, with this model in it."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
