"""Which formats the back end enforces, which are said as patterns, and which are no rules."""

from __future__ import annotations

BACK_END = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)

_ESCAPED = "%[0-9A-Fa-f]{2}"
_UNRESERVED = r"[A-Za-z0-9\-._~!$&'()*+,;=]"
_SEGMENT_CHAR = rf"({_UNRESERVED}|[:@]|{_ESCAPED})"
_AUTHORITY = rf"//(({_UNRESERVED}|:|{_ESCAPED})*@)?(\[[0-9A-Fa-f:.]+\]|({_UNRESERVED}|{_ESCAPED})*)(:[0-9]*)?"
_REST = rf"(\?({_SEGMENT_CHAR}|[/?])*)?(#({_SEGMENT_CHAR}|[/?])*)?"
_PATH = rf"(/{_SEGMENT_CHAR}*)*"
_RELATIVE_FIRST = rf"({_UNRESERVED}|@|{_ESCAPED})+"
_POINTER = r"(/([^~/]|~[01])*)*"

PATTERNS = {
    # RFC 3986: a URI, or a reference whose first segment holds no colon.
    "uri-reference": (
        rf"^([A-Za-z][A-Za-z0-9+\-.]*:({_AUTHORITY}{_PATH}|/?({_SEGMENT_CHAR}+{_PATH})?)"
        rf"|{_AUTHORITY}{_PATH}|/({_SEGMENT_CHAR}+{_PATH})?|({_RELATIVE_FIRST}{_PATH})?){_REST}$"
    ),
    # RFC 6901, and the draft of relative pointers.
    "json-pointer": rf"^{_POINTER}$",
    "relative-json-pointer": rf"^(0|[1-9][0-9]*)(#|{_POINTER})$",
}

UNSUPPORTED = frozenset({"idn-email", "idn-hostname", "iri", "iri-reference", "uri-template"})
"""Formats of the specification that nothing here can check."""

CHECKED = frozenset({"regex"})
"""Formats that a check at the end tells."""
