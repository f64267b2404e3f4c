"""Methods by specification: which drafter, policy, verifier and guides a row of the table stands for.

The short form is ``[name =] draft [@ policy] [| verifier]``, each part as everywhere in Ventris
(``part:key=value,key=value``)::

    autoregressive
    ngram
    ngram:width=1 @ fixed:nodes=5
    copying = ngram,model:folder @ goodput | coupled

The long form is a mapping with ``name``, ``draft``, ``policy``, ``verifier`` and ``guides``, in Python, as
JSON or as YAML. A file of that kind holds one method or a list of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ventris.engine.errors import BadInput
from ventris.parts import parse

AUTOREGRESSIVE = "autoregressive"

_NAMED = re.compile(r"\s*([A-Za-z][\w.+-]*)\s*=(.*)", re.DOTALL)
_KEYS = ("name", "draft", "policy", "verifier", "guides")
_FILES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Method:
    """A combination of parts under a name.

    Attributes:
        name: What the table calls it.
        draft, policy, verifier, guides: Part specifications; ``None`` leaves the choice to Ventris.
    """

    name: str
    draft: Any = None
    policy: Any = None
    verifier: Any = None
    guides: Any = None

    @property
    def plain(self) -> bool:
        """True for plain autoregressive decoding, which the others are measured against."""
        return self.draft is None and self.verifier is None and self.guides is None


def parse_method(spec: str | Mapping[str, Any]) -> Method:
    """Read one method.

    Raises:
        BadInput: one line that quotes the specification and says what is wrong with it.
    """
    if isinstance(spec, Mapping):
        return _from_mapping(spec)
    if not isinstance(spec, str):
        raise BadInput(f"a method is a text or a mapping, not {spec!r}")
    if spec.lstrip().startswith("{"):
        return _from_mapping(_yaml(spec, "the method"))
    text, name = spec, None
    if named := _NAMED.fullmatch(spec):
        name, text = named.group(1), named.group(2)
    text, verifier = _split(text, "|", spec)
    text, policy = _split(text, "@", spec)
    draft = text.strip()
    if not draft:
        raise BadInput(f"the method {spec!r} names no drafter; write 'ngram', or 'autoregressive' for none")
    shown = name or re.sub(r"\s*([@|,])\s*", r"\1", spec.strip())
    return _checked(Method(shown, draft, policy, verifier), spec)


def parse_methods(specs: Iterable[Any]) -> list[Method]:
    """Read several methods and files of methods; plain autoregressive decoding comes first, always.

    Raises:
        BadInput: as :func:`parse_method`, and for two methods of one name.
    """
    methods = [method for spec in specs for method in _expand(spec)]
    if not any(method.name == AUTOREGRESSIVE for method in methods):
        methods.insert(0, Method(AUTOREGRESSIVE))
    methods.sort(key=lambda method: method.name != AUTOREGRESSIVE)
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"two methods are called {name!r}; give one another name: 'other = ...'")
    if not methods[0].plain:
        raise BadInput(f"{AUTOREGRESSIVE!r} is plain decoding, the baseline; give this method another name")
    return methods


def _expand(spec: Any) -> list[Method]:
    if isinstance(spec, Method):
        return [spec]
    if not isinstance(spec, str) or Path(spec).suffix.lower() not in _FILES:
        return [parse_method(spec)]
    try:
        text = Path(spec).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the methods in {spec}: {error}") from None
    found = _yaml(text, f"the methods in {spec}")
    return [parse_method(item) for item in (found if isinstance(found, list) else [found])]


def _yaml(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"cannot read {what}: {reason}") from None


def _split(text: str, mark: str, spec: str) -> tuple[str, str | None]:
    """The text before a mark and the part after it, ``None`` without a mark."""
    before, found, after = text.partition(mark)
    if not found:
        return text, None
    after = after.strip()
    if not after or mark in after:
        kind = "policy" if mark == "@" else "verifier"
        raise BadInput(f"the method {spec!r} needs exactly one {kind} after {mark!r}")
    return before, after


def _from_mapping(spec: Any) -> Method:
    if not isinstance(spec, Mapping):
        raise BadInput(f"a method is a mapping with {', '.join(_KEYS)}; this is none: {spec!r}")
    if unknown := [key for key in spec if key not in _KEYS]:
        raise BadInput(f"a method has no entry {unknown[0]!r}; it has {', '.join(_KEYS)}")
    given = {key: value for key, value in spec.items() if value not in (None, "", [], {})}
    name = given.pop("name", None) or _describe(given)
    if not isinstance(name, str):
        raise BadInput(f"the name of a method is a text, not {name!r}")
    return _checked(Method(name, **given), spec)


def _describe(parts: Mapping[str, Any]) -> str:
    """A name for a method that was given none."""
    draft = parts.get("draft", AUTOREGRESSIVE)
    text = draft if isinstance(draft, str) else ",".join(part.name for part in parse(draft))
    for key, mark in (("policy", "@"), ("verifier", "|"), ("guides", "+")):
        if key in parts:
            part = parts[key]
            text += mark + (part if isinstance(part, str) else ",".join(p.name for p in parse(part)))
    return str(text)


def _checked(method: Method, spec: Any) -> Method:
    """The method with its parts' grammar looked at; which parts exist is seen when they are built."""
    for part in (method.draft, method.policy, method.verifier, method.guides):
        if isinstance(part, str | Mapping | list):
            try:
                parse(part)
            except BadInput as error:
                raise BadInput(f"the method {spec!r}: {error}") from None
    if method.draft in (AUTOREGRESSIVE, "none"):
        return Method(method.name, None, method.policy, method.verifier, method.guides)
    return method
