"""Text preprocessing: bytes to token ids, the same in training, in the server and in the client.

VERSION changes whenever the same text may give other ids. tests/golden/tokens.json holds the promise.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from tokenizers import Tokenizer as HuggingFaceTokenizer

from querylife.contract import MAX_TEXT_CHARACTERS, TokenRole
from querylife.errors import ArtifactError, InvalidRequestError, ItemError, ItemFault
from querylife.preprocessing.spelling import SPELLING_NAME, SpellingCorrector, read_vocabulary

VERSION = 1

PREFIXES_NAME = "prefixes.json"  # beside tokenizer.json

# Rows are padded to one of these lengths, so that requests of a like length share a batch (and, on GPU, a CUDA
# graph) without a long title slowing short queries.
LENGTH_BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclass(frozen=True)
class Tokens:
    """One batch of tokenised texts.

    token_ids: [batch, length] int32. token_roles: [batch, length] int32, contract.TokenRole. faults: row -> what is
    wrong with it; such a row holds special tokens only.
    """

    token_ids: NDArray[np.int32]
    token_roles: NDArray[np.int32]
    faults: dict[int, ItemError]

    @property
    def text_used(self) -> NDArray[np.bool_]:
        """[batch] bool: whether the row holds any token of its text."""
        used: NDArray[np.bool_] = (self.token_roles == TokenRole.TEXT).any(axis=1)
        return used


class Prefixes(NamedTuple):
    """What an encoder wants before each text, such as e5's "query: " and "passage: "; an empty text stays empty."""

    query: str = ""
    title: str = ""


def write_prefixes(prefixes: Prefixes, path: Path) -> None:
    path.write_text(json.dumps(prefixes._asdict()) + "\n")


def read_prefixes(path: Path) -> Prefixes:
    """Raises ArtifactError for a file that write_prefixes did not write."""
    try:
        return Prefixes(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error


class Tokenizer:
    """Turns texts, each with an optional product type, into padded token ids."""

    def __init__(
        self,
        path: Path,
        max_tokens: int,
        spelling: Mapping[str, int] | None = None,
        prefixes: Prefixes | None = None,
        *,
        pads_to_longest: bool = False,
    ) -> None:
        """path: a Hugging Face tokenizer.json. max_tokens: special tokens included; longer texts are cut.

        spelling: word to count, the vocabulary that queries are corrected to; None: what spelling.txt beside path has.
        prefixes: None: what prefixes.json beside path has.
        pads_to_longest: all rows get max_tokens, instead of the next of LENGTH_BUCKETS.
        """
        self._tokenizer = HuggingFaceTokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens, strategy="longest_first")
        shorter = () if pads_to_longest else tuple(length for length in LENGTH_BUCKETS if length < max_tokens)
        self._buckets = (*shorter, max_tokens)
        self._pad_id = _pad_id(self._tokenizer)
        vocabulary = path.with_name(SPELLING_NAME)
        if spelling is None and vocabulary.is_file():
            spelling = read_vocabulary(vocabulary)
        self._corrector = SpellingCorrector(spelling, self._encoder_words()) if spelling else None
        stored = path.with_name(PREFIXES_NAME)
        self._prefixes = prefixes or (read_prefixes(stored) if stored.is_file() else Prefixes())

    def check(self, token_ids: NDArray[np.int32]) -> None:
        """Raise InvalidRequestError unless a text tower can look up token_ids, [batch, length], from elsewhere."""
        vocabulary, longest = self._tokenizer.get_vocab_size(with_added_tokens=True), self._buckets[-1]
        if token_ids.shape[1] > longest:
            raise InvalidRequestError(f"token_ids: found {token_ids.shape[1]} tokens, want at most {longest}")
        if token_ids.size and not (token_ids.min() >= 0 and token_ids.max() < vocabulary):
            span = f"{token_ids.min()} to {token_ids.max()}"
            raise InvalidRequestError(f"token_ids: found {span}, want 0 to {vocabulary - 1}")

    def whole_words(self) -> list[str]:
        """The plain lower-case words of the vocabulary, sorted."""
        return sorted(
            word for word in self._tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 2
        )

    def _encoder_words(self) -> set[str]:
        """Every whole word that the encoder's vocabulary has, lower case."""
        return {word.lstrip("▁Ġ").lower() for word in self._tokenizer.get_vocab() if word.lstrip("▁Ġ").isalpha()}

    def encode_queries(self, queries: Sequence[bytes | str]) -> Tokens:
        """As encode, with the queries' prefix, their spelling corrected where the model has a vocabulary for it."""
        corrected = queries if self._corrector is None else [self._corrected(query) for query in queries]
        return self._encode(corrected, None, self._prefixes.query)

    def _corrected(self, query: bytes | str) -> bytes | str:
        """A query at fault stays as it is, for encode to report."""
        assert self._corrector is not None
        try:
            return self._corrector.correct(checked_text(query))
        except ItemError:
            return query

    def encode(self, texts: Sequence[bytes | str], product_types: Sequence[bytes | str] | None = None) -> Tokens:
        """Tokenise texts (queries or titles), each with its product type where that is known.

        An empty text or product type is a missing one. Bytes are UTF-8. Faults are reported per row.
        """
        return self._encode(texts, product_types, self._prefixes.title)

    def _encode(self, texts: Sequence[bytes | str], product_types: Sequence[bytes | str] | None, prefix: str) -> Tokens:
        faults: dict[int, ItemError] = {}
        pairs: list[str | tuple[str, str]] = []
        for row, text in enumerate(texts):
            try:
                pairs.append(_pair(text, product_types[row] if product_types is not None else "", prefix))
            except ItemError as error:
                faults[row] = error
                pairs.append("")
        return self._pad(self._tokenizer.encode_batch(pairs), faults)

    def _pad(self, encodings: list[Encoding], faults: dict[int, ItemError]) -> Tokens:
        longest = max((len(encoding.ids) for encoding in encodings), default=0)
        length = next(bucket for bucket in self._buckets if bucket >= longest)
        token_ids = np.full((len(encodings), length), self._pad_id, np.int32)
        token_roles = np.full((len(encodings), length), TokenRole.PADDING, np.int32)
        for row, encoding in enumerate(encodings):
            token_ids[row, : len(encoding.ids)] = encoding.ids
            token_roles[row, : len(encoding.ids)] = [_ROLE_OF[sequence] for sequence in encoding.sequence_ids]
        return Tokens(token_ids, token_roles, faults)


_ROLE_OF = {None: TokenRole.SPECIAL, 0: TokenRole.TEXT, 1: TokenRole.PRODUCT_TYPE}


def _pair(text: bytes | str, product_type: bytes | str, prefix: str) -> str | tuple[str, str]:
    title, kind = checked_text(text), checked_text(product_type)
    prefixed = prefix + title if title else ""
    return (prefixed, kind) if kind else prefixed


def checked_text(text: bytes | str) -> str:
    """Decode and limit one text; a blank one becomes "". Raises ItemError."""
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            position = f"byte 0x{text[error.start]:02x} at offset {error.start}"
            raise ItemError(ItemFault.TEXT_NOT_UTF8, f"found {position}, want UTF-8") from error
    if len(text) > MAX_TEXT_CHARACTERS:
        detail = f"found {len(text)} characters, want at most {MAX_TEXT_CHARACTERS}"
        raise ItemError(ItemFault.TEXT_TOO_LONG, detail)
    return "" if text.isspace() else text


def _pad_id(tokenizer: HuggingFaceTokenizer) -> int:
    pad_ids = (tokenizer.token_to_id(token) for token in ("[PAD]", "<pad>"))
    return next((pad_id for pad_id in pad_ids if pad_id is not None), 0)
