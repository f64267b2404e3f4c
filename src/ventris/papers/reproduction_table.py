"""Which papers have a reproduction, and where it stands."""

REPRODUCTIONS: dict[str, str] = {
    "bild": "ventris.papers.bild:reproduce_bild",
    "chimera": "ventris.papers.chimera:reproduce_chimera",
    "direct-alignment": "ventris.papers.direct_alignment:reproduce_direct_alignment",
    "eagle3": "ventris.papers.draft_heads:reproduce_eagle3",
    "falcon": "ventris.papers.falcon:reproduce_falcon",
    "fs-gen": "ventris.papers.fs_gen:reproduce_fs_gen",
    "hydra": "ventris.papers.draft_heads:reproduce_hydra",
    "jsonschemabench": "ventris.papers.jsonschemabench:reproduce_jsonschemabench",
    "judge-decoding": "ventris.papers.judge_decoding:reproduce_judge_decoding",
    "kangaroo": "ventris.papers.kangaroo:reproduce_kangaroo",
    "longspec": "ventris.papers.longspec:reproduce_longspec",
    "medusa": "ventris.papers.draft_heads:reproduce_medusa",
    "omnidraft": "ventris.papers.omnidraft:reproduce_omnidraft",
    "smartspec": "ventris.papers.smartspec:reproduce_smartspec",
    "specmemo": "ventris.papers.specmemo:reproduce_specmemo",
    "spectr": "ventris.papers.spectr:reproduce_spectr",
}
"""Slug to ``"module:function"``. The function takes the options as keywords and returns a Reproduction.

A paper's entry is in state "works" if and only if it stands here; this is checked when the registry is read.
A path and not the function itself, so that listing the papers imports no model code.
"""
