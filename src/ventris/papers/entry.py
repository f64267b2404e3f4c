"""What the registry says of one paper."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Group = Literal[
    "trained drafters",
    "verification and adaptation",
    "guaranteed form",
    "guided",
    "multimodal",
    "diffusion and continuous",
    "retrieval and context",
    "people and behaviour",
    "brain signals and imaging",
]
GROUPS: tuple[str, ...] = get_args(Group)
"""The families of papers, in the order in which a table lists them."""

State = Literal["works", "planned"]

Guarantee = Literal["exact", "approximate", "exact or approximate", "not applicable"]

PART_KINDS: tuple[str, ...] = (
    "target",
    "drafter",
    "guide",
    "verifier",
    "policy",
    "search",
    "loop",
    "head",
    "encoder",
    "sampler",
    "cache",
    "ingest",
    "trainer",
    "evaluator",
    "data",
)
"""The kinds of part that an entry may name: the five of the decoding loop, and what stands around it."""

Part = Annotated[str, Field(pattern=rf"^({'|'.join(PART_KINDS)}): [a-z0-9]+(-[a-z0-9]+)*$")]

Text = Annotated[str, Field(min_length=1)]


class Paper(BaseModel):
    """One paper: what it is, which parts build it, what it claims and what is run here to check that.

    ``year`` is the year of the first public version; ``venue`` names where it appeared later, with the year.
    ``parts`` holds names such as ``"drafter: medusa"``, the kind first.
    ``guarantee`` says what a run of these parts may state of its output, in the sense of the whole toolkit:
    *exact* means the distribution of the target as its guides reshape it, token for token at temperature 0.
    ``beyond`` marks an entry that is not one of the forty-four papers of the project.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slug: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    title: Text
    authors: Text
    year: Annotated[int, Field(ge=1990, le=2100)]
    venue: str = ""
    arxiv: Annotated[str, Field(pattern=r"^(\d{4}\.\d{4,5})?$")] = ""
    group: Group
    state: State
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    claim: Text
    claim_figure: Text
    reproduction: Text
    guarantee: Guarantee
    beyond: bool = False

    @model_validator(mode="after")
    def _year_agrees_with_arxiv(self) -> "Paper":
        if self.arxiv and self.year != 2000 + int(self.arxiv[:2]):
            raise ValueError(f"{self.slug}: year {self.year} is not that of arXiv {self.arxiv}")
        return self

    @model_validator(mode="after")
    def _parts_are_distinct(self) -> "Paper":
        if len(set(self.parts)) != len(self.parts):
            raise ValueError(f"{self.slug}: a part is named twice")
        return self
