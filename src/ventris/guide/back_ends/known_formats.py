"""Formats that back ends without formats of their own enforce, as patterns."""

from __future__ import annotations

_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9\\-]{0,61}[A-Za-z0-9])?"
_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\-]+"
_HEX = "[0-9A-Fa-f]"

PATTERNS = {
    "uuid": f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$",
    "ipv4": rf"^{_BYTE}(\.{_BYTE}){{3}}$",
    "hostname": rf"^{_LABEL}(\.{_LABEL}){{0,126}}$",
    # RFC 5321 without quoted local parts.
    "email": rf"^{_ATOM}(\.{_ATOM})*@{_LABEL}(\.{_LABEL}){{0,126}}$",
}
