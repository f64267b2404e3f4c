"""The process that runs what strangers wrote, so that it can be stopped: a script, never imported.

It reads one JSON object a line and answers with one: first the vocabulary, then grammars to compile and texts
to check against a schema. It imports nothing of Ventris, so it starts quickly.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

KEPT_SCHEMAS = 16


class _Vocabulary:
    """What llguidance asks of a tokenizer; splitting text by the longest token is good enough for a trial."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, facts: dict[str, Any]) -> None:
        self.tokens = [token.encode("latin-1") for token in facts["tokens"]]
        self.special_token_ids = facts["special"]
        self.eos_token_id = facts["end"]
        special = set(self.special_token_ids)
        self._ids = {token: i for i, token in enumerate(self.tokens) if i not in special}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: str | bytes) -> list[int]:
        data = text if isinstance(text, bytes) else text.encode()
        ids: list[int] = []
        place = 0
        while place < len(data):
            ends = range(min(len(data), place + self._longest), place, -1)
            end = next((end for end in ends if data[place:end] in self._ids), None)
            if end is None:
                break
            ids.append(self._ids[data[place:end]])
            place = end
        return ids


def _bound_memory(further: int) -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + further, resource.RLIM_INFINITY))


def _trouble(tokenizer: LLTokenizer, asked: dict[str, Any]) -> str:
    matcher = LLMatcher(tokenizer, asked["grammar"], log_level=0, limits=LLParserLimits(**asked["limits"]))
    if not matcher.is_error():
        # The first mask builds what construction leaves for later.
        mask = matcher.compute_bitmask()
        if "NoExtension" in matcher.get_error() or (not matcher.is_error() and not any(mask)):
            return "it allows no text at all"
    return matcher.get_error()


class _Checks:
    """Texts against schemas, by the reference validator; the latest schemas are kept ready."""

    def __init__(self) -> None:
        self._validators: OrderedDict[str, Any] = OrderedDict()

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What is wrong with each text, empty where nothing is; or that the schema has to be sent."""
        key = asked["key"]
        if "schema" in asked:
            self._validators[key] = _validator(json.loads(asked["schema"]), asked["formats"])
            if len(self._validators) > KEPT_SCHEMAS:
                self._validators.popitem(last=False)
        if key not in self._validators:
            return {"unknown": True}
        self._validators.move_to_end(key)
        return {"faults": [_fault(self._validators[key], text) for text in asked["texts"]]}


def _validator(schema: Any, known_formats: list[str]) -> Any:
    from jsonschema import Draft202012Validator, FormatChecker, validators
    from jsonschema_specifications import REGISTRY

    kind = validators.validator_for(schema, default=Draft202012Validator)
    # The newest meaning of each format; older drafts had a "time" without a zone.
    formats = FormatChecker(formats=())
    known = Draft202012Validator.FORMAT_CHECKER.checkers
    formats.checkers = {name: known[name] for name in known_formats if name in known}
    # A registry of one's own keeps the validator from fetching references.
    return kind(schema, registry=REGISTRY, format_checker=formats)


def _finite(text: str) -> float:
    """A number with a fraction or exponent; one that overflows would be checked as if it were none."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _fault(validator: Any, text: str) -> str:
    try:
        first = next(validator.iter_errors(json.loads(text, parse_float=_finite)), None)
    except Exception as error:  # whatever a strange schema does to the validator
        return f"it cannot be checked: {type(error).__name__}: {error}"
    return first.message if first else ""


def _jsonschema(vocabulary: _Vocabulary) -> Callable[[str], bytes] | None:
    """Nothing is compiled; the packages that checks need are imported once."""
    import_module("jsonschema")
    import_module("jsonschema_specifications")
    return None


def _xgrammar(vocabulary: _Vocabulary) -> Callable[[str], bytes]:
    from xgrammar import GrammarCompiler, TokenizerInfo, VocabType

    special = {*vocabulary.special_token_ids, vocabulary.eos_token_id}
    # Tokens that are no text are left empty, which is how xgrammar knows them.
    spelled = [b"" if i in special else token for i, token in enumerate(vocabulary.tokens)]
    known = TokenizerInfo(
        spelled, VocabType.RAW, vocab_size=len(spelled), stop_token_ids=[vocabulary.eos_token_id]
    )
    compiler = GrammarCompiler(known, max_threads=1, cache_enabled=False)
    return lambda grammar: compiler.compile_grammar(grammar).serialize_json().encode()


def _outlines_core(vocabulary: _Vocabulary) -> Callable[[str], bytes]:
    from outlines_core import Index, Vocabulary

    special = {*vocabulary.special_token_ids, vocabulary.eos_token_id}
    spelled: dict[bytes | str, list[int]] = {}
    for token, text in enumerate(vocabulary.tokens):
        if text and token not in special:
            spelled.setdefault(text, []).append(token)
    known = Vocabulary(vocabulary.eos_token_id, spelled)
    # An index has no method that gives its bytes; pickle asks for them in this way.
    return lambda expression: bytes(Index(expression, known).__reduce__()[1][0])


PREPARE = {"jsonschema": _jsonschema, "xgrammar": _xgrammar, "outlines-core": _outlines_core}
"""What is imported when it is first asked for; for back ends, what makes bytes from a grammar."""


def _built(make: Callable[[str], bytes], grammar: str) -> dict[str, str]:
    try:
        return {"error": "", "made": b64encode(make(grammar)).decode()}
    except MemoryError:
        raise
    except Exception as error:  # each package has its own
        return {"error": str(error) or type(error).__name__}


def main() -> None:
    """Serve until the other side closes the pipe."""
    vocabulary: Any = _Vocabulary(json.loads(sys.stdin.readline()))
    # A worker for checks alone has no vocabulary.
    tokenizer = LLTokenizer(vocabulary) if vocabulary.tokens else None
    checks = _Checks()
    print(json.dumps({"ready": True}), flush=True)
    made: dict[str, Callable[[str], bytes] | None] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "prepare" in asked:
            made[asked["prepare"]] = PREPARE[asked["prepare"]](vocabulary)
            print(json.dumps({"ready": True}), flush=True)
            continue
        _bound_memory(asked["memory"])
        answer: dict[str, Any]
        if make := made.get(asked.get("back_end", "")):
            answer = _built(make, asked["grammar"])
        elif tokenizer is not None and "grammar" in asked:
            answer = {"error": _trouble(tokenizer, asked)}
        else:
            answer = checks.answer(asked)
        print(json.dumps(answer), flush=True)


main()
