"""Which formats the back end enforces, which are said as patterns, and which are no rules."""

from __future__ import annotations

BACK_END = frozenset({"duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})

# The back end's own dates have a 29 February in every year, and leap seconds in every minute.
_MONTH_DAY = (
    "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
_DATE = f"([0-9]{{4}}-{_MONTH_DAY}|{_LEAP_YEAR}-02-29)"
_HOUR_MINUTE = "([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = (
    rf"({_HOUR_MINUTE}:[0-5][0-9](\.[0-9]+)?([Zz]|[+-]{_HOUR_MINUTE})"
    r"|23:59:60(\.[0-9]+)?([Zz]|[+-]00:00))"
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
    # RFC 3339. Leap seconds are told in UTC only.
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}[Tt]{_TIME}$",
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

AT_END = BACK_END | CHECKED | {"date", "time", "date-time"}
"""Formats that the check at the end looks at, when there is one."""
