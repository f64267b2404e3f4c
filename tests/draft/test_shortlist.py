"""The draft vocabulary."""

from __future__ import annotations

import torch

from ventris.draft.shortlist import NOT_LISTED, Shortlist


def test_it_holds_the_most_frequent_tokens():
    shortlist = Shortlist.most_frequent(torch.tensor([5, 5, 5, 3, 3, 9]), 12, 2)
    assert shortlist.ids.tolist() == [3, 5]
    assert shortlist.place[[3, 5, 9]].tolist() == [0, 1, NOT_LISTED]
    assert shortlist.coverage(torch.tensor([5, 5, 9, 3])) == 0.75


def test_some_tokens_always_belong_to_it():
    shortlist = Shortlist.most_frequent(torch.tensor([5, 5, 5, 3, 3, 9]), 12, 2, always=[11])
    assert shortlist.ids.tolist() == [5, 11]


def test_no_size_means_the_whole_vocabulary():
    assert Shortlist.most_frequent(torch.tensor([1]), 7, 0).ids.tolist() == list(range(7))
    assert len(Shortlist.most_frequent(torch.tensor([1]), 7, 100)) == 7
