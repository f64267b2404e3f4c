"""Compiling in bounded time and memory: tried in a worker first, done here only if that went well."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Collection, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from ventris.engine.errors import BadInput
from ventris.guide.limits import Limits

SCRIPT = Path(__file__).with_name("compile_worker.py")

START_SECONDS = 60.0
"""A loaded machine may need long to start a process; this is no limit on anybody's grammar."""


class GrammarRefused(BadInput):
    """The back end does not take a grammar; the message is its first line."""


class CompileWorker:
    """A process that compiles grammars for one vocabulary and can be killed.

    It starts with the first :meth:`check` (or :meth:`start`), and again after it was killed. Calls from
    several threads wait for each other.

    Args:
        tokens: Bytes of every token; none for a process that only checks texts against schemas.
        special: Tokens that are no text.
        end: A token that ends the text.
    """

    def __init__(self, tokens: list[bytes], special: list[int], end: int) -> None:
        spelled = [token.decode("latin-1") for token in tokens]
        self._facts = json.dumps({"tokens": spelled, "special": special, "end": end})
        self._process: subprocess.Popen[str] | None = None
        self._answers: Queue[dict[str, Any] | None] = Queue()
        self._lock = threading.Lock()
        self._ready = False
        self._prepared: set[str] = set()

    def start(self) -> None:
        """Let the process come up while the caller does something else."""
        with self._lock:
            self._start()

    def check(self, grammar: str, limits: Limits) -> None:
        """Compile a grammar there.

        Raises:
            GrammarRefused: if llguidance does not take it.
            BadInput: naming the limit that it passed.
        """
        error = self._ask({"grammar": grammar, "limits": limits.parser_settings()}, limits)["error"]
        if error:
            raise GrammarRefused(gist(error))

    def build(self, back_end: str, grammar: str, limits: Limits) -> bytes:
        """Compile a grammar there with another back end, and fetch the result in that back end's own form.

        Raises:
            GrammarRefused: if the back end does not take it.
            BadInput: naming the limit that it passed.
        """
        self._prepare(back_end)
        answer = self._ask({"back_end": back_end, "grammar": grammar}, limits)
        if answer["error"]:
            raise GrammarRefused(gist(answer["error"]))
        return b64decode(answer["made"])

    def faults(
        self, texts: Sequence[str], schema: str, formats: Collection[str], limits: Limits
    ) -> list[str]:
        """Why each text breaks a schema (JSON text); empty where it does not.

        Raises:
            BadInput: naming the limit that the checks passed.
        """
        self._prepare("jsonschema")
        key = hashlib.sha256(json.dumps([schema, sorted(formats)]).encode()).hexdigest()
        asked = {"texts": list(texts), "formats": sorted(formats), "key": key}
        answer = self._ask(asked, limits)
        if "unknown" in answer:
            answer = self._ask({**asked, "schema": schema}, limits)
        found: list[str] = answer["faults"]
        return found

    def _prepare(self, package: str) -> None:
        """Import a package there, which takes long and is no limit on anybody's grammar."""
        with self._lock:
            self._start()
            if package in self._prepared:
                return
            self._send(json.dumps({"prepare": package}))
            self._expect_start()
            late = f"{package} does not start in the compile worker"
            if self._answer(START_SECONDS, late) is None:
                raise BadInput(late)
            self._prepared.add(package)

    def _expect_start(self) -> None:
        if not self._ready:
            self._answer(START_SECONDS, "the compile worker does not start")
            self._ready = True

    def _ask(self, request: dict[str, Any], limits: Limits) -> dict[str, Any]:
        with self._lock:
            self._start()
            self._expect_start()
            self._send(json.dumps({**request, "memory": limits.compile_bytes}))
            answer = self._answer(
                limits.compile_seconds,
                f"it takes more than {limits.compile_seconds:g} s (limit compile_seconds); simplify it",
            )
        if answer is None:
            raise BadInput(
                "it broke the compiler, most likely for want of memory "
                f"({limits.compile_bytes:,} bytes, limit compile_bytes); simplify it"
            )
        return answer

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._kill()

    def _start(self) -> None:
        if self._process is not None:
            return
        # -P: the script's folder holds modules with common names that must not shadow others.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        self._answers = Queue()
        self._ready = False
        self._prepared = set()
        threading.Thread(target=_listen, args=(self._process, self._answers), daemon=True).start()
        self._send(self._facts)

    def _send(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:
            # It died; the missing answer says so.
            self._answers.put(None)

    def _answer(self, seconds: float, late: str) -> dict[str, Any] | None:
        """The next answer; ``None`` if the process died."""
        try:
            answer = self._answers.get(timeout=seconds)
        except Empty:
            self._kill()
            raise BadInput(late) from None
        if answer is None:
            self._kill()
        return answer

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def gist(error: str) -> str:
    """The telling lines of a message of llguidance, which may quote the whole grammar."""
    lines = [line.strip() for line in error.strip().splitlines()]
    cause = next((line for line in lines[1:] if line.startswith("error: ")), "")
    return f"{lines[0]} {cause.removeprefix('error: ')}".strip() if lines else ""


def _listen(process: subprocess.Popen[str], answers: Queue[dict[str, Any] | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(json.loads(line))
    answers.put(None)
