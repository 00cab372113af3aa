"""Queries with typing errors give the ids of the right words; clean queries, brands and titles stay as they are."""

import pytest

from querylife.data.vocabulary import is_test_split, phrases, spelling_words, vocabulary
from querylife.errors import ArtifactError
from querylife.model.encoders import load_tokenizer
from querylife.preprocessing.spelling import SpellingCorrector, count_words, read_vocabulary, write_vocabulary
from querylife.preprocessing.text import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("minilm-l6", 64, spelling_words(vocabulary()))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("blak leather shoos", "black leather shoes"),
        ("formaal shoes", "formal shoes"),
        ("men white watcdes", "men white watches"),
        ("Casual BLAKC", "casual black"),
        ("casutl briels", "casual briefs"),
        ("sunglases, black", "sunglasses, black"),
    ],
)
def test_a_typing_error_gives_the_ids_of_the_word_that_was_meant(tokenizer: Tokenizer, typed: str, meant: str) -> None:
    want = tokenizer.encode([meant]).token_ids.tolist()
    assert tokenizer.encode_queries([typed]).token_ids.tolist() == want
    assert tokenizer.encode([typed]).token_ids.tolist() != want, "a title is never corrected"


@pytest.mark.parametrize(
    "clean",
    [
        "navy blue shirts for men",
        "fila sports shoes",
        "lakme lipstick",
        "long sleeved patterned dresses",
        "schwarze Jacke für Damen, ärmellos",
        "size 42 XL t-shirt",
        "something to tell the time",
        "ab cde",
        "",
    ],
)
def test_a_clean_query_stays_as_it_is(tokenizer: Tokenizer, clean: str) -> None:
    assert tokenizer.encode_queries([clean]).token_ids.tolist() == tokenizer.encode([clean]).token_ids.tolist()


def test_a_query_at_fault_is_reported_as_ever(tokenizer: Tokenizer) -> None:
    queries = [b"\xff\xfe", "x" * 5000, b"blak shoes"]
    corrected, plain = tokenizer.encode_queries(queries), tokenizer.encode(queries)
    assert {row: error.fault for row, error in corrected.faults.items()} == {
        row: error.fault for row, error in plain.faults.items()
    }
    assert corrected.text_used.tolist() == [False, False, True]


def test_a_short_word_keeps_its_first_letter_and_becomes_a_common_word_only() -> None:
    corrector = SpellingCorrector({"tile": 10, "rare": 1}, ["word"])
    assert corrector.correct("mile rars tils") == "mile rars tile"


def test_no_held_out_phrase_brings_a_word_of_its_own() -> None:
    words = vocabulary()
    allowed = spelling_words(words)
    names = [name for names in words.names.values() for name in names[1:]]
    held_out = {word for name in names if is_test_split(name) for word in count_words([name])}
    unseen = held_out - set(count_words(name for name in names if not is_test_split(name)))
    assert len(unseen - set(allowed)) > 10


def test_a_vocabulary_comes_back_from_its_file(tmp_path) -> None:
    counts = {"shoes": 7, "kurta": 3, "weiß": 2}
    write_vocabulary(counts, tmp_path / "spelling.txt")
    assert read_vocabulary(tmp_path / "spelling.txt") == counts
    (tmp_path / "spelling.txt").write_text("shoes 7\nkurta\n")
    with pytest.raises(ArtifactError, match="line 2: found 'kurta'"):
        read_vocabulary(tmp_path / "spelling.txt")


def test_slots_of_sentence_frames_are_no_words() -> None:
    assert not {"{person}", "person}", "possessive"} & set(spelling_words(vocabulary()))
    assert phrases("a; b") == ("a", "b")
