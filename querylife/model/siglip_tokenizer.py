"""SigLIP's tokenizer as a tokenizer.json. transformers has only a Python class over the SentencePiece library.

SigLIP 2 and open_clip's SigLIP have other tokenizer classes, which transformers saves as tokenizer.json itself.
"""

import re
import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers.convert_slow_tokenizer import import_protobuf
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import cached_file

from querylife.errors import ArtifactError

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's
END = "</s>"
# Parts of SigLIP's canonicalisation of texts.
WITHOUT_PUNCTUATION = normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), "")
SINGLE_SPACES = (normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip())


def has_siglip_tokenizer(source: str, model_type: str) -> bool:
    """Whether the source wants SiglipTokenizer. source: a folder or a hub id. model_type: from its config.json."""
    kind = get_tokenizer_config(source).get("tokenizer_class")
    return kind == "SiglipTokenizer" or (kind is None and model_type == "siglip")


def siglip_tokenizer(source: str) -> tuple[Tokenizer, int | None]:
    """The tokenizer and its padding token id. Raises ArtifactError if there is no spiece.model."""
    try:
        path = cached_file(source, "spiece.model")
    except OSError as error:
        raise ArtifactError(f"{source}: found no spiece.model, want SigLIP's: {error}") from error
    settings = get_tokenizer_config(source)
    tokenizer = from_sentencepiece(Path(path).read_bytes(), is_lower=settings.get("do_lower_case", True))
    padding = settings.get("pad_token", END)
    return tokenizer, tokenizer.token_to_id(padding["content"] if isinstance(padding, dict) else padding)


def from_sentencepiece(encoded: bytes, *, is_lower: bool) -> Tokenizer:
    """encoded: a SentencePiece unigram model. Texts are cleaned as in SiglipTokenizer.canonicalize_text."""
    model = import_protobuf().ModelProto.FromString(encoded)
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    settings = model.trainer_spec
    tokenizer = Tokenizer(models.Unigram(pieces, settings.unk_id, settings.byte_fallback))
    charsmap = model.normalizer_spec.precompiled_charsmap
    tokenizer.normalizer = normalizers.Sequence(
        [
            *([normalizers.Lowercase()] if is_lower else []),
            WITHOUT_PUNCTUATION,
            *([normalizers.Precompiled(charsmap)] if charsmap else []),
            *SINGLE_SPACES,
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    tokenizer.add_special_tokens([END])
    return tokenizer
