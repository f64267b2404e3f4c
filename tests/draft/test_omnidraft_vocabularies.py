"""Two vocabularies side by side: the bytes are always the same, whatever the tokenizers do with text."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from ventris.draft.omnidraft.byte_map import NONE, ByteMap
from ventris.draft.omnidraft.mergers import Mergers
from ventris.draft.omnidraft.translator import Translator, Word
from ventris.engine.errors import BadInput
from ventris.models.tokenizer import Tokenizer, TokenizerFacts
from ventris.testing.vocabularies import made_tokenizer

PROSE = [
    "The lamps of the old harbour were stamped with the names of ships.",
    "def stamps(count):\n    return [f'{i}' for i in range(count)]\n",
    "Grüße aus München! 東京の天気は晴れです。 🙂🙃 naïve café",
    "  indented\t\ttabs\r\n\r\nand   spaces  ",
] * 4


def byte_level(vocab: int, special: tuple[str, ...], regex: bool = True) -> Tokenizer:
    """Byte-level BPE, as GPT-2 and SmolLM2 have it."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(PROSE, trainer)
    return Tokenizer(backend, TokenizerFacts(eos_ids=(0,)))


def sentence_piece(normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    """Pieces with a space before every text, and single bytes for what is in no piece, as Llama 2 has it."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["▁", *"abcdefghijklmnopqrstuvwxyz", "st", "am", "▁st", "amp", "stamp", "▁the", "th", "he"]
    names = ["<unk>", "<s>", "</s>", *bytes_, *pieces, "the", "ps"]
    merges = [("s", "t"), ("a", "m"), ("▁", "st"), ("am", "p"), ("st", "amp"), ("t", "h"), ("h", "e")]
    merges += [("p", "s"), ("t", "he"), ("▁", "the")]
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={n: i for i, n in enumerate(names)}, merges=merges, byte_fallback=True, unk_token="<unk>"
        )
    )
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    backend.normalizer = normalizers.Sequence([*([normalizer] if normalizer else []), *steps])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names[:3]])
    return Tokenizer(backend, TokenizerFacts(bos_id=1, eos_ids=(2,), add_bos=True))


KINDS = {
    "small": byte_level(300, ("<end>", "<turn>")),
    "large": byte_level(400, ("<stop>", "<turn>", "<other>")),
    "no words": byte_level(500, ("<end>",), regex=False),
    "sentence piece": sentence_piece(),
    "changes text": sentence_piece(normalizers.NFKC()),
}
PAIRS = [
    ("small", "large"),
    ("large", "small"),
    ("no words", "small"),
    ("small", "sentence piece"),
    ("sentence piece", "large"),
    ("changes text", "no words"),
    ("sentence piece", "changes text"),
]


def beside(draft: str, target: str) -> ByteMap:
    """A map for a target whose logits are padded."""
    sizes = KINDS[draft].vocab_size, KINDS[target].vocab_size + 7
    return ByteMap(KINDS[draft], KINDS[target], *sizes)


MAPS = {pair: beside(*pair) for pair in PAIRS}
parts = [*PROSE[:4], "🙂", "ﬁ", "①", "\u00a0", "e\u0301", "  ", "stamps"]
anything = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="stamp the\n ", max_size=40),
    st.lists(st.sampled_from([*PROSE, "🙂", "ﬁ", "①", "\u00a0", "e\u0301", "  ", "stamps"]), max_size=3).map(
        "".join
    ),
)


def plain_bytes(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    return b"".join(map(tokenizer.token_bytes, ids))


@pytest.mark.parametrize("pair", MAPS, ids=" for ".join)
@settings(max_examples=120)
@given(text=anything)
def test_a_text_comes_through_byte_for_byte(pair, text):
    map = MAPS[pair]
    said = map.target.encode(text)
    data = plain_bytes(map.target, said)
    start = [map.draft.bos_id] if map.draft.facts.add_bos else []
    read = map.read(said)
    assert read[: len(start)] == start
    assert map.bytes_of(read[len(start) :]) == data
    one_by_one = [id for token in said for id in map.spell(token)]
    assert map.bytes_of(one_by_one) == data


@pytest.mark.parametrize("pair", MAPS, ids=" for ".join)
@settings(max_examples=60)
@given(data=st.binary(max_size=24))
def test_bytes_that_are_no_text_come_through_too(pair, data):
    map = MAPS[pair]
    assert map.bytes_of(map.spell_bytes(data)) == data


@pytest.mark.parametrize("pair", MAPS, ids=" for ".join)
def test_ids_correspond_where_their_bytes_do_and_nowhere_else(pair):
    map = MAPS[pair]
    assert len(map.target_of) == map.draft.vocab_size
    assert len(map.draft_of) == map.target.vocab_size + 7
    spellings = {map.target.token_bytes(id) for id in range(map.target.vocab_size)} - {b""}
    for id, counterpart in enumerate(map.target_of.tolist()):
        special = id in map.draft.special_ids
        if counterpart != NONE and not special:
            assert map.draft.token_bytes(id) == map.target.token_bytes(counterpart)
            assert counterpart not in map.target.special_ids
        if counterpart == NONE and not special:
            assert map.draft.token_bytes(id) not in spellings - {
                map.target.token_bytes(s) for s in map.target.special_ids
            }
    for token in range(map.target.vocab_size):
        if token not in map.target.special_ids:
            assert map.bytes_of(map.spell(token)) == map.target.token_bytes(token)
    assert 0 < map.shared <= 1


def test_special_tokens_go_by_name_and_by_what_they_are_for():
    map = MAPS["small", "large"]  # ids: <end> 0, <turn> 1 for <stop> 0, <turn> 1, <other> 2
    assert map.target_of[:2].tolist() == [0, 1]
    assert map.draft_of[:2].tolist() == [0, 1]
    assert map.bytes_of(map.spell(2)) == b"<other>"
    turn = map.read([1, *map.target.encode("stamps"), 2])
    assert turn[0] == 1
    assert map.bytes_of(turn[1:]) == b"stamps<other>"
    # Beginnings correspond too, and one is not put before another.
    assert MAPS["sentence piece", "changes text"].read([1, 2]) == [1, 2]


def test_the_first_token_after_a_prompt_continues_it():
    """SentencePiece puts a space before a text; the middle of one must be read without."""
    map = MAPS["sentence piece", "large"]
    (said,) = map.target.encode("s")
    assert map.draft.vocabulary_bytes[map.draft.encode("s")[0]] == b" "
    assert map.bytes_of(map.spell(said)) == b"s"
    read = map.read(map.target.encode("the stamp"))
    assert read[0] == map.draft.bos_id
    assert map.bytes_of([*read[1:], *map.spell(said)]) == b"the stamps"


def test_a_vocabulary_that_cannot_spell_the_targets_is_refused():
    with pytest.raises(BadInput, match="no token for the byte 0x63, which the target's token 2 holds"):
        ByteMap(made_tokenizer(["a", "b", "ab"]), made_tokenizer(["a", "b", "c"]), 3, 3)


PIECES = ["s", "t", "a", "m", "p", "st", "am", "amp", "stam"]
WANTED = ["s", "t", "a", "m", "p", "st", "mp", "amp", "ps", "stamp", "stamps"]


def pair(mergers: Mergers | None = None) -> Translator:
    map = ByteMap(made_tokenizer(PIECES), made_tokenizer(WANTED), len(PIECES), len(WANTED))
    return Translator(map, Mergers() if mergers is None else mergers)


def ids(*pieces: str) -> tuple[int, ...]:
    return tuple(map(PIECES.index, pieces))


def words(found: list[Word]) -> list[tuple[str, int, int]]:
    return [(WANTED[word.token], word.start, word.stop) for word in found]


def test_without_mergers_there_is_only_the_direct_map():
    translator = pair()
    assert words(translator.translate(ids("st", "amp", "s"))) == [("st", 0, 1), ("amp", 1, 2), ("s", 2, 3)]
    assert words(translator.translate(ids("st", "am", "s"))) == [("st", 0, 1)]  # "am" means nothing there
    assert translator.translate(ids("am")) == []


def test_the_longest_merger_is_taken_from_left_to_right():
    mergers = Mergers()
    assert mergers.learn(ids("st", "amp"), WANTED.index("stamp"))
    translator = pair(mergers)
    assert words(translator.translate(ids("st", "amp", "s"))) == [("stamp", 0, 2), ("s", 2, 3)]
    assert mergers.learn(ids("st", "amp", "s"), WANTED.index("stamps"))
    assert words(translator.translate(ids("st", "amp", "s"))) == [("stamps", 0, 3)]
    assert words(translator.translate(ids("st", "amp", "p"))) == [("stamp", 0, 2), ("p", 2, 3)]
    # A piece without a counterpart may yet be the beginning of a merger.
    mergers.learn(ids("am", "p"), WANTED.index("amp"))
    assert words(translator.translate(ids("st", "am", "p"))) == [("st", 0, 1), ("amp", 1, 3)]
    begun = ids("st", "am")
    assert translator.may_go_on(begun, translator.translate(begun))
    dead = ids("am", "am")
    assert not translator.may_go_on(dead, translator.translate(dead))


def test_no_sequence_means_two_tokens_and_learning_twice_changes_nothing():
    mergers = Mergers(longest=3)
    assert mergers.learn((1, 2), 5)
    assert not mergers.learn((1, 2), 5)
    assert not mergers.learn((1, 2), 6)
    assert not mergers.learn((1,), 7)
    assert not mergers.learn((1, 2, 3, 4), 8)
    assert list(mergers) == [((1, 2), 5)]


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 9)), max_size=60),
    st.lists(st.integers(0, 3), max_size=12),
)
def test_the_cache_finds_what_a_plain_table_would(learnt, text):
    mergers, table = Mergers(longest=4, most=9), {}
    for pieces, token in learnt:
        pieces = tuple(pieces)
        mergers.learn(pieces, token)
        if 2 <= len(pieces) <= 4:
            table[pieces] = table.pop(pieces, token)
            if len(table) > 9:
                del table[next(iter(table))]
    assert list(mergers) == list(table.items())
    again = Mergers(longest=4, most=9)
    again.fill(mergers.tensors())
    assert list(again) == list(mergers)
    for start in range(len(text)):
        stops = [stop for stop in range(start + 2, len(text) + 1) if tuple(text[start:stop]) in table]
        expected = (stops[-1] - start, table[tuple(text[start : stops[-1]])]) if stops else None
        assert again.longest_at(text, start) == expected
        part = tuple(text[start:])
        assert again.begins(part) == any(p[: len(part)] == part and len(p) > len(part) for p in table)
        ends = {(p[-1], token) for p, token in table.items() if p[:-1] == part}
        assert set(again.completions(part)) == ends
