"""Where references lead, without ever fetching anything."""

from __future__ import annotations

from typing import Any

import referencing.exceptions
from jsonschema_specifications import REGISTRY
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from ventris.engine.errors import BadInput
from ventris.guide.schema.source import Schema

Resolver = Any
"""A place in a document; ``referencing`` gives the class no public name."""

SIBLINGS_IGNORED = ("draft-03", "draft-04", "draft-06", "draft-07")
"""Drafts in which nothing beside a ``$ref`` counts."""


def resolver_of(schema: Schema) -> Resolver:
    """The resolver at the root of a schema; it knows the schema itself and the published meta-schemas."""
    resource: Resource[Any] = Resource.from_contents(schema, default_specification=DRAFT202012)
    base = resource.id() or ""
    registry: Registry[Any] = REGISTRY.with_resource(base, resource)
    return registry.resolver(base)


def follow(resolver: Resolver, reference: str) -> tuple[Schema, Resolver]:
    """What a reference means, and the place it leads to.

    Raises:
        BadInput: if it leads outside the document, or nowhere.
    """
    try:
        found = resolver.lookup(reference)
    except (referencing.exceptions.Unresolvable, referencing.exceptions.NoSuchResource, ValueError) as error:
        remote = "://" in reference
        reason = "is remote, and remote references are never fetched" if remote else "leads nowhere"
        raise BadInput(f"$ref {reference!r} {reason}; put what it means under $defs") from error
    contents: Schema = found.contents
    if not isinstance(contents, dict | bool):
        raise BadInput(f"$ref {reference!r} leads to something that is no schema")
    return contents, found.resolver


def enter(resolver: Resolver, schema: dict[str, Any]) -> Resolver:
    """The place inside a subschema, which may have an ``$id`` of its own."""
    if not isinstance(schema.get("$id"), str) or "$schema" in schema:
        # A schema with `$schema` is a root, whose resolver knows its `$id` already.
        return resolver
    try:
        inside = resolver.in_subresource(DRAFT202012.create_resource(schema))
        inside.lookup("#")
    except (ValueError, referencing.exceptions.Unresolvable):
        # An `$id` that the draft does not count as one.
        return resolver
    return inside


def ref_stands_alone(root: Schema) -> bool:
    """True under the drafts in which keywords beside ``$ref`` are ignored."""
    dialect = root.get("$schema", "") if isinstance(root, dict) else ""
    return isinstance(dialect, str) and any(draft in dialect for draft in SIBLINGS_IGNORED)
