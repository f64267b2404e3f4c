"""A model in two halves gives the numbers of the whole one: passes, taps, and caches whatever is done."""

from __future__ import annotations

import random

import families
import pytest
import torch

from ventris.engine.errors import BadInput, StageLost
from ventris.engine.target import Rows, Target

TOKENS, PARENTS = [5, 9, 13, 2, 40, 7], [-1, 0, 0, 1, 2, 2]


def same(one: object, other: object) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("name", families.NAMES)
def test_every_family_gives_the_same_logits_and_taps(pair, name):
    made = pair(name)
    prompt = [1 + n % 50 for n in range(20)]
    caches = {id(target): target.new_cache(4) for target in (made.whole, made.target)}

    def passed(target: Target, tokens, parents, **given):
        return target.forward([Rows(caches[id(target)], tokens, parents, **given)], range(5))

    for tokens, parents, given in ((prompt, range(-1, 19), {"wanted": ()}), (TOKENS, PARENTS, {})):
        one, other = (passed(target, tokens, parents, **given) for target in (made.whole, made.target))
        same(other.logits, one.logits)
        same(other.hidden, one.hidden)
        for cache in caches.values():
            cache.commit([0, 2, 5] if tokens is TOKENS else range(20))


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_layers_one_by_one_and_from_any_to_any(pair, cut):
    made = pair("gemma3", cut)
    results = []
    for target in (made.whole, made.target):
        cache = target.new_cache()
        target.forward([Rows(cache, TOKENS[:2], PARENTS[:2])])
        late = [Rows(cache, TOKENS[2:], PARENTS, start=2)]
        rows, seen = target.embed(late), []
        for first, last in ((0, 1), (1, 3), (3, 3), (3, 4)):
            rows, tapped = target.run_layers(late, rows, first, last, [first, last])
            seen += [rows, *tapped.values()]
        results.append([*seen, target.head(rows)])
    same(results[1], results[0])


def test_one_batch_with_blocks_that_see_one_another_and_given_rows(pair):
    made = pair("llama")
    given = torch.randn((2, made.whole.hidden_size), generator=torch.Generator().manual_seed(0))
    one, other = (
        target.forward(
            [
                Rows(target.new_cache(), TOKENS, PARENTS, wanted=[5, 1]),
                Rows(target.new_cache(), [3, 4], [-1, -1], sees=[1, 1]),
                Rows(target.new_cache(), [0, 0], [-1, 0], embeddings=given),
            ]
        )
        for target in (made.whole, made.target)
    )
    same(other.logits, one.logits)


class Mirror:
    """The same done to a cache of the whole model and to one of the model in two halves."""

    def __init__(self, made):
        self.made = made
        self.pairs = [(made.whole.new_cache(8), made.target.new_cache(8))]

    def do(self, name, *given):
        for cache in self.pairs[-1]:
            getattr(cache, name)(*given)

    def fork(self):
        self.pairs.append(tuple(cache.fork() for cache in self.pairs[-1]))

    def grow(self, tokens, parents, path):
        whole, split = self.pairs[-1]
        one = self.made.whole.forward([Rows(whole, tokens, parents)])
        other = self.made.target.forward([Rows(split, tokens, parents)])
        same(other.logits, one.logits)
        self.do("commit", path)

    def compare(self):
        """Every row of every cache is the same on both sides of the cut."""
        for whole, split in self.pairs:
            assert (split.length, split.next_position) == (whole.length, whole.next_position)
            twin = self.made.second.twins[split.number]
            assert twin.length == whole.length
            halves = [*(split.rows(n) for n in range(2)), *(twin.rows(n) for n in range(2))]
            for layer, rows in enumerate(halves):
                same(rows, whole.rows(layer))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_the_two_halves_of_a_cache_keep_step(pair, name, seed):
    """Random growth by trees, forks, cuts, dropped rows, moves; then every row is compared."""
    made = pair(name)
    chance = random.Random(seed)
    mirror = Mirror(made)
    for _ in range(25):
        length = mirror.pairs[-1][0].length
        nodes = chance.randint(1, 9)
        tokens = [chance.randrange(96) for _ in range(nodes)]
        parents = [chance.randint(-1, node - 1) for node in range(nodes)]
        path, node = [], nodes - 1
        while node >= 0:
            path, node = [node, *path], parents[node]
        act = chance.choice(["grow"] * 4 + ["fork", "truncate", "keep", "compact", "release", "drop"])
        if act == "grow" and mirror.pairs[-1][0].next_position < 100:
            mirror.grow(tokens, parents, path)
        elif act == "fork" and len(mirror.pairs) < 4:
            mirror.fork()
        elif act == "truncate":
            mirror.do("truncate", chance.randint(0, length))
        elif act == "keep" and length:
            kept = sorted(chance.sample(range(length), chance.randint(1, length)))
            mirror.do("keep", torch.tensor(kept))
        elif act in ("compact", "release"):
            mirror.do(act)
        elif act == "drop" and len(mirror.pairs) > 1:
            mirror.pairs.pop()
    mirror.grow([5], [-1], [0])
    mirror.grow([6], [-1], [])
    mirror.compare()
    mirror.pairs.clear()
    last = made.target.new_cache()
    made.target.forward([Rows(last, [1], [-1])])
    assert len(made.second.twins) == 1
    assert made.second.ledger.total == last.layout.row_bytes * last.spans[0].storage.capacity


def test_rows_that_differ_by_layer_go_to_their_layers(pair):
    made = pair("llama", 1)
    kept = torch.tensor([[0, 2], [1, 2], [0, 3], [2, 3]])
    logits = []
    for target in (made.whole, made.target):
        cache = target.new_cache()
        target.forward([Rows(cache, [3, 4, 5, 6], range(-1, 3))])
        cache.commit(range(4))
        cache.keep(kept)
        logits += target.forward([Rows(cache, [7, 8], [-1, 0])]).logits
    same(logits[1], logits[0])


def test_bad_input_is_refused_and_nothing_is_lost(pair):
    made = pair("llama")
    cache = made.target.new_cache()
    with pytest.raises(BadInput, match="cannot tap layers"):
        made.target.forward([Rows(cache, [1], [-1])], [5])
    with pytest.raises(BadInput, match="outside the vocabulary"):
        made.target.forward([Rows(cache, [96], [-1])])
    with pytest.raises(BadInput, match="past the context"):
        made.target.forward([Rows(cache, [1] * 129, range(-1, 128))])
    beyond = torch.zeros((129, made.target.hidden_size))
    with pytest.raises(BadInput, match="past the context"):  # said by the second half
        made.target.run_layers([Rows(made.target.new_cache(), [1] * 129, range(-1, 128))], beyond, 2, 4)
    fresh = made.whole.new_cache()
    expected = made.whole.forward([Rows(fresh, [1], [-1])]).logits
    same(made.target.forward([Rows(cache, [1], [-1])]).logits, expected)


def test_a_closed_model_says_so(pair):
    made = pair("llama")
    cache = made.target.new_cache()
    made.target.forward([Rows(cache, [1], [-1])])
    made.target.close()
    with pytest.raises(StageLost, match="has been closed"):
        made.target.forward([Rows(cache, [2], [-1])])


def test_a_second_half_without_memory_is_lost(pair):
    made = pair("llama")
    made.second.ledger.limit = 1000
    with pytest.raises(StageLost, match="the second stage has failed: RuntimeError: no memory for a cache"):
        made.target.forward([Rows(made.target.new_cache(), [1], [-1])])


def test_halves_out_of_step_are_noticed(pair):
    made = pair("llama")
    cache = made.target.new_cache()
    made.target.forward([Rows(cache, [1, 2], [-1, 0])])
    cache.commit([0])
    made.target._link.tell("truncate", cache.number, 0)
    with pytest.raises(StageLost, match="a cache of 1 rows has 0 here"):
        made.target.forward([Rows(cache, [3], [-1])])
    with pytest.raises(StageLost):
        made.target.forward([Rows(made.target.new_cache(), [3], [-1])])
