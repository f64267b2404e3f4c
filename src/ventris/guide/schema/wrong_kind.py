"""What is wrong with a schema whose values are of the wrong kinds, in one line."""

from __future__ import annotations

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import best_match
from jsonschema_specifications import REGISTRY

from ventris.guide.schema.source import Schema


def wrong_kind(schema: Schema) -> str:
    """The fault that the schema's meta-schema finds; a general sentence if it finds none.

    Asked only after a rewriting failed: to hold every schema against its meta-schema would take longer than
    all the rest.
    """
    kind = validators.validator_for(schema, default=Draft202012Validator)
    try:
        fault = best_match(kind(kind.META_SCHEMA, registry=REGISTRY).iter_errors(schema))
    except Exception:  # the schema is broken in a way that the validator does not survive, either
        fault = None
    if fault is None:
        return "the schema holds a value of the wrong kind, in a place that a $ref leads to"
    place = "/".join(map(str, fault.absolute_path))
    return f"the schema holds a value of the wrong kind, at /{place}: {' '.join(fault.message.split())[:200]}"
