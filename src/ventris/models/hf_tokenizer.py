"""The tokenizer of a transformers folder: ``tokenizer.json`` and the small files around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers

from ventris.engine.errors import BadInput
from ventris.models.hf_config import read_json
from ventris.models.tokenizer import Tokenizer, TokenizerFacts

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def read_folder_tokenizer(folder: Path, eos_ids: tuple[int, ...] = ()) -> Tokenizer:
    """The tokenizer in ``folder``.

    Args:
        eos_ids: Ending tokens that the model's configuration names; the tokenizer's own is added.

    Raises:
        BadInput: if there is no tokenizer, or it is damaged or of a kind that is not supported.
    """
    backend = _backend(folder)
    settings = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    named = {}
    for name in _NAMED:
        value = settings.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            named[name] = content
    ends = list(eos_ids)
    own_end = backend.token_to_id(named["eos_token"]) if "eos_token" in named else None
    begin = backend.token_to_id(named["bos_token"]) if "bos_token" in named else None
    if own_end is not None:
        ends.append(own_end)
    return Tokenizer(
        backend,
        TokenizerFacts(
            bos_id=begin,
            eos_ids=tuple(dict.fromkeys(ends)),
            add_bos=begin is not None and _adds_bos(backend, settings.get("add_bos_token"), begin),
            chat_templates=_chat_templates(folder, settings.get("chat_template")),
            named_tokens=named,
        ),
    )


def _backend(folder: Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            return tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for whatever it cannot parse
            raise BadInput(f"cannot read {path}: {error}; download the file again") from None
    from transformers import AutoTokenizer

    try:
        slow = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        backend = slow.backend_tokenizer
    except Exception as error:  # each of its many conversions fails in its own way
        raise BadInput(
            f"{folder} has no tokenizer.json, and transformers cannot make one of the other files "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); add tokenizer.json"
        ) from None
    if not isinstance(backend, tokenizers.Tokenizer):
        raise BadInput(f"{folder} has a tokenizer without a fast version; add tokenizer.json")
    return backend


def _adds_bos(backend: tokenizers.Tokenizer, setting: Any, begin: int) -> bool:
    """Whether prompts begin with the token: as the settings say, else as the post-processor does."""
    if isinstance(setting, bool):
        return setting
    return backend.encode("a", add_special_tokens=True).ids[:1] == [begin]


def _chat_templates(folder: Path, setting: Any) -> dict[str, str]:
    """Templates by name; a file of its own goes before the entry in ``tokenizer_config.json``."""
    templates = {}
    if isinstance(setting, str):
        templates["default"] = setting
    elif isinstance(setting, list):
        for entry in setting:
            if isinstance(entry, dict) and isinstance(entry.get("template"), str):
                templates[str(entry.get("name"))] = entry["template"]
    try:
        path = folder / "chat_template.jinja"
        if path.is_file():
            templates["default"] = path.read_text(encoding="utf-8")
        for path in sorted(folder.glob("additional_chat_templates/*.jinja")):
            templates[path.stem] = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}; download the file again") from None
    return templates
