"""The page as it is sent: closed to foreign code, complete, and open without a key."""

from __future__ import annotations

import re

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from tests.serve.running import Running, running
from ventris.cli.main import main
from ventris.model import Model
from ventris.playground import PAGE_PATHS
from ventris.serve.service import Service


@pytest.mark.parametrize("path", sorted(PAGE_PATHS))
def test_every_file_has_a_strict_policy(server: Running, path: str) -> None:
    reply = server.ask("GET", path)
    assert reply.status == 200
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(server: Running) -> None:
    page, style, script = (server.ask("GET", path).body.decode() for path in sorted(PAGE_PATHS))
    assert not re.search(r"\s(on\w+|style)=", page)
    assert re.findall(r"<(?:script|style)\b[^>]*>", page) == ['<script src="/playground.js" defer>']
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page)) == {"/playground.js", "/playground.css", "data:,"}
    for text in (page, style, script):
        assert "https:" not in text
        assert set(re.findall(r"http://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "url(" not in style
    for door in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"):
        assert door not in script, door


def test_the_page_needs_no_key_and_the_api_does(model: Model) -> None:
    with running(model, keys=("a-long-enough-key",)) as server:
        assert all(server.ask("GET", path).status == 200 for path in PAGE_PATHS)
        assert server.ask("GET", "/v1/models").status == 401


def test_the_page_is_no_part_of_the_api(server: Running) -> None:
    assert not PAGE_PATHS & set(server.ask("GET", "/openapi.json").json["paths"])
    assert server.ask("POST", "/", {}).status == 405


@pytest.mark.parametrize(("options", "there"), [((), True), (("--without-playground",), False)])
def test_the_page_can_be_left_out(
    model: Model, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], there: bool
) -> None:
    made: list[list[APIRouter]] = []

    def create_app(service: Service, pages: list[APIRouter], open_paths: frozenset[str]) -> None:
        made.append(pages)

    monkeypatch.setattr("ventris.serve.app.create_app", create_app)
    monkeypatch.setattr("ventris.serve.run.serve", lambda app, service: None)
    monkeypatch.setattr("ventris.serve.log.log_to", lambda: None)
    monkeypatch.setattr("ventris.cli.serve.load_for", lambda asked: model)
    assert main(["serve", *options]) == 0
    paths = {route.path for router in made[0] for route in router.routes if isinstance(route, APIRoute)}
    assert paths == (PAGE_PATHS if there else set())
