"""OmniDraft: one drafter for targets of any vocabulary, that learns while it is used."""

from ventris.draft.omnidraft.drafter import OmniDraft

__all__ = ["OmniDraft"]
