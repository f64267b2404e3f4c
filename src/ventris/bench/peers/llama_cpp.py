"""llama.cpp on the same GGUF file, through its C interface.

``llama_cpp.Llama.generate`` spends time in Python on every token that the library itself does not need. Here
``llama_decode`` is called directly and the most probable token is found with numpy, so that what is timed is
llama.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from ventris.bench.clock import Clock
from ventris.bench.contestant import Decoded, Limits
from ventris.bench.peers.base import Peer, PeerContext, PeerMissing

CHUNK = 512
"""Prompt tokens read in one call, llama.cpp's default."""

FLASH = {"auto": -1, "off": 0, "on": 1}


class Plain(Peer):
    """Greedy decoding, one token a call."""

    name = "llama.cpp"
    plain = "llama.cpp"

    class Options(BaseModel):
        """Options of llama.cpp."""

        flash: Literal["auto", "on", "off"] = Field("auto", description="flash attention")

    def __init__(self, context: PeerContext, flash: str = "auto", **options: Any) -> None:
        source = context.model()
        if source.kind != "gguf":
            raise PeerMissing("reads .gguf files only")
        key = f"llama.cpp {flash}"
        self.session: _Session = context.once(
            key, partial(_Session, str(source.path), context.threads, context.context_length, FLASH[flash])
        )
        from importlib.metadata import version

        extra = "".join(f", {key} {value}" for key, value in options.items())
        self.statement = (
            f"llama-cpp-python {version('llama-cpp-python')}, the same .gguf, llama_decode called directly, "
            f"{context.threads} threads, flash attention {flash}{extra}"
        )

    def decode(self, prompt: Sequence[int], limits: Limits) -> Decoded:
        """Decode one prompt from an empty cache."""
        session = self.session
        session.clear()
        clock = Clock()
        tokens = [session.read(prompt)]
        clock.arrived(1)
        passes = 1
        while not _ended(tokens, limits):
            tokens.append(session.next(tokens[-1]))
            clock.arrived(1)
            passes += 1
        return _decoded(tokens, clock, limits, passes)


class PromptLookup(Plain):
    """Drafts copied from prompt and output by llama-cpp-python's own search, checked in one call.

    The search is the package's ``LlamaPromptLookupDecoding``; only the loop around it is ours, without the
    package's copy of all logits of the context.
    """

    name = "llama.cpp-prompt-lookup"

    class Options(Plain.Options):
        """Options of prompt lookup on llama.cpp."""

        tokens: int = Field(
            2, ge=1, le=64, description="drafted tokens a step; the package advises 2 on a CPU"
        )
        ngram: int = Field(2, ge=1, le=16, description="longest ending that is looked up")

    def __init__(self, context: PeerContext, flash: str = "auto", tokens: int = 2, ngram: int = 2) -> None:
        super().__init__(context, flash, tokens=tokens, ngram=ngram)
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        self._search = LlamaPromptLookupDecoding(max_ngram_size=ngram, num_pred_tokens=tokens)

    def decode(self, prompt: Sequence[int], limits: Limits) -> Decoded:
        """Decode one prompt from an empty cache."""
        session = self.session
        session.clear()
        known = np.empty(len(prompt) + limits.max_new_tokens + 64, dtype=np.intc)
        known[: len(prompt)] = prompt
        clock = Clock()
        tokens = [session.read(prompt)]
        clock.arrived(1)
        passes, drafted, accepted = 1, 0, 0
        while not _ended(tokens, limits):
            count = len(prompt) + len(tokens)
            known[count - 1] = tokens[-1]
            # The last token allowed is the model's own, so a draft need not reach it.
            room = limits.max_new_tokens - len(tokens) - 1
            draft = self._search(known[:count])[: max(room, 0)].tolist()
            chosen = session.check([tokens[-1], *draft])
            kept = 0
            while kept < len(draft) and chosen[kept] == draft[kept]:
                kept += 1
            new = chosen[: kept + 1]
            ends = [index for index, token in enumerate(new) if token in limits.end_ids]
            new = new[: ends[0] + 1] if ends else new
            session.keep(count + kept)
            known[count : count + len(new)] = new
            tokens += new
            clock.arrived(len(new))
            passes, drafted, accepted = passes + 1, drafted + len(draft), accepted + kept
        decoded = _decoded(tokens, clock, limits, passes)
        decoded.drafted, decoded.accepted = drafted, accepted
        return decoded


def _ended(tokens: list[int], limits: Limits) -> bool:
    return len(tokens) >= limits.max_new_tokens or tokens[-1] in limits.end_ids


def _decoded(tokens: list[int], clock: Clock, limits: Limits, passes: int) -> Decoded:
    finish = "stop" if tokens[-1] in limits.end_ids else "length"
    return Decoded(tokens, clock, finish, passes=passes, decode_passes=passes - 1)


class _Session:
    """A model and one context of llama.cpp."""

    def __init__(self, path: str, threads: int, context_length: int, flash: int) -> None:
        try:
            import llama_cpp
        except (ImportError, OSError, RuntimeError) as error:
            reason = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
            raise PeerMissing(f"not installed: pip install llama-cpp-python{reason}") from None
        self.api: Any = llama_cpp
        # Kept alive, for the library calls it as long as it lives.
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), model_params)
        if not self.model:
            raise PeerMissing("llama.cpp cannot load this file")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context_length
        params.n_batch = params.n_ubatch = CHUNK
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = flash
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise PeerMissing("llama.cpp cannot open a context for this model")
        vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(vocab)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.used = 0
        self._one = (llama_cpp.llama_token * 1)()

    def clear(self) -> None:
        """Forget everything read so far."""
        self.api.llama_memory_clear(self.memory, False)
        self.used = 0

    def read(self, prompt: Sequence[int]) -> int:
        """Read a prompt and return the most probable token after it."""
        for start in range(0, len(prompt), CHUNK):
            chunk = prompt[start : start + CHUNK]
            tokens = (self.api.llama_token * len(chunk))(*chunk)
            self._decode(self.api.llama_batch_get_one(tokens, len(chunk)))
            self.used += len(chunk)
        return self._best(-1)

    def next(self, token: int) -> int:
        """Append a token and return the most probable one after it."""
        self._one[0] = token
        self._decode(self.api.llama_batch_get_one(self._one, 1))
        self.used += 1
        return self._best(-1)

    def check(self, tokens: Sequence[int]) -> list[int]:
        """Append tokens and return the most probable one after each of them."""
        if len(tokens) == 1:
            return [self.next(tokens[0])]
        count = len(tokens)
        batch = self.api.llama_batch_init(count, 0, 1)
        try:
            batch.n_tokens = count
            for index, token in enumerate(tokens):
                batch.token[index] = token
                batch.pos[index] = self.used + index
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = 0
                batch.logits[index] = True
            self._decode(batch)
        finally:
            self.api.llama_batch_free(batch)
        self.used += count
        return [self._best(index) for index in range(count)]

    def keep(self, count: int) -> None:
        """Forget all but the first ``count`` tokens."""
        if count < self.used:
            self.api.llama_memory_seq_rm(self.memory, 0, count, -1)
            self.used = count

    def _decode(self, batch: Any) -> None:
        status = self.api.llama_decode(self.context, batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status}")

    def _best(self, index: int) -> int:
        row = self.api.llama_get_logits_ith(self.context, index)
        logits: NDArray[np.float32] = np.ctypeslib.as_array(row, shape=(self.vocab_size,))
        return int(logits.argmax())
