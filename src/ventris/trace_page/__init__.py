"""The trace page: one self-contained HTML file that shows how each token of a completion came about."""

from ventris.trace_page.page import render_trace_page, write_trace_page

__all__ = ["render_trace_page", "write_trace_page"]
