"""The page at ``/`` of a server, where a person sees decoding happen."""

from ventris.playground.routes import PAGE_PATHS, playground

__all__ = ["PAGE_PATHS", "playground"]
