"""The page's files as routes for ``create_app``.

The page is a client of the API like any other. It loads nothing from elsewhere, and its policy lets the
browser run nothing but its own script.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

from ventris.trace_page.page import SHARED_SCRIPTS, SHARED_STYLES, asset

STYLES = ("page.css",)
SCRIPTS = ("events.js", "pieces.js", "guides.js", "lane.js", "page.js")
PAGE, STYLE, SCRIPT = "/", "/playground.css", "/playground.js"

PAGE_PATHS = frozenset({PAGE, STYLE, SCRIPT})
"""Need no key: a browser has none before the page has asked for it."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def playground() -> APIRouter:
    """The routes of the page."""
    router = APIRouter(include_in_schema=False)
    for path, kind, text in (
        (PAGE, "text/html", _own("page.html")),
        (STYLE, "text/css", "".join([*map(asset, SHARED_STYLES), *map(_own, STYLES)])),
        (SCRIPT, "text/javascript", "".join([*map(asset, SHARED_SCRIPTS), *map(_own, SCRIPTS)])),
    ):
        _add(router, path, kind, text)
    return router


def _add(router: APIRouter, path: str, kind: str, text: str) -> None:
    @router.get(path)
    async def send() -> Response:
        return Response(text, headers=HEADERS, media_type=kind)


def _own(name: str) -> str:
    return files("ventris.playground").joinpath(name).read_text(encoding="utf-8")
