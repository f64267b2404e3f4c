"""Settings checked by their pydantic model, with one line for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ventris.engine.errors import BadInput

SettingsT = TypeVar("SettingsT", bound=BaseModel)


def checked_settings(model: type[SettingsT], given: Mapping[str, Any], command: str) -> SettingsT:
    """Check settings.

    Args:
        command: Whose help lists the settings, such as ``"ventris bench"``.

    Raises:
        BadInput: one line that names the setting and the rule.
    """
    try:
        return model(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(place) for place in first["loc"])
        if first["type"] == "extra_forbidden":
            raise BadInput(f"there is no setting {name!r}; see {command} --help") from error
        if first["type"] == "missing":
            raise BadInput(f"--{name} is needed: {model.model_fields[name].description}") from error
        raise BadInput(f"{name} is {first['input']!r}: {first['msg'].lower()}") from error
