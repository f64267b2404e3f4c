"""Guides: what the distribution should be instead of the target's own."""

from ventris.guide.aligned import Aligned
from ventris.guide.call_format import CallStream, ToolAnswer, ToolCall, read_calls
from ventris.guide.choice import Choice
from ventris.guide.format import Format
from ventris.guide.fuse import Fuse
from ventris.guide.grammar import Grammar
from ventris.guide.hard import HardGuide
from ventris.guide.json_schema import Json, JsonSchema
from ventris.guide.limits import GuideStopped, Limits
from ventris.guide.regex import Regex
from ventris.guide.schema.concise import concise_schema
from ventris.guide.tool_calls import ToolCalls
from ventris.guide.words import Words

__all__ = [
    "Aligned",
    "CallStream",
    "Choice",
    "Format",
    "Fuse",
    "Grammar",
    "GuideStopped",
    "HardGuide",
    "Json",
    "JsonSchema",
    "Limits",
    "Regex",
    "ToolAnswer",
    "ToolCall",
    "ToolCalls",
    "Words",
    "concise_schema",
    "read_calls",
]
