"""Writes a random SigLIP with SiglipTokenizer, and what transformers makes of texts with it.

Run it with an environment that has the SentencePiece library: PYTHONPATH=tests python siglip_reference.py FOLDER
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from dual_encoder_folders import LENGTH, TEXTS, write_dual_encoder
from texts_to_clean import ODD, TITLES
from transformers import AutoTokenizer, SiglipModel

PIECES = 120
SPECIAL = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}


def write(folder: Path) -> None:
    write_dual_encoder(folder, "siglip", vocabulary=PIECES)
    for path in folder.glob("*token*"):
        path.unlink()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, *TITLES] * 10),
        model_writer=model,
        vocab_size=PIECES,
        hard_vocab_limit=False,
        minloglevel=1,
        **SPECIAL,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    settings = {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [*TEXTS, *TITLES, *ODD]
    ids = tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        vectors = SiglipModel.from_pretrained(folder).eval().get_text_features(input_ids=ids).pooler_output
    np.savez(folder / "reference.npz", ids=ids.numpy(), texts=F.normalize(vectors, dim=-1).numpy())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
