"""The judge's encoders: unit rows, the model's own vectors, and weights that are told apart."""

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from words_server import WordGenerator

from genfilt_server.generation.cached_generator import CachedGenerator
from genfilt_server.generation.pipeline import Generated
from genfilt_server.judge.embedder import ThreadedEmbedder
from genfilt_server.judge.encoders import checkpoint_folder, load_encoder, tower_identity
from querylife.errors import ArtifactError
from querylife.model.embed import embed_queries, model_tokenizer
from querylife.model.query_life import load_checkpoint

TEXTS = ["red dress", "Nike Men's Running Shoes", "something warm for winter"]
SHIPPED = checkpoint_folder("querylife-mini")


def changed(folder: Path, name: str) -> Path:
    """The shipped checkpoint with other weights under this name."""
    shutil.copytree(SHIPPED, folder)
    weights = load_file(folder / "model.safetensors")
    weights[name] = -weights[name]
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("name", ["minilm", "querylife-mini"])
def test_vectors_are_unit_rows_that_do_not_depend_on_their_neighbours(name: str) -> None:
    encoder = load_encoder(name)
    together = encoder.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together[:1], encoder.encode(TEXTS[:1]), atol=1e-5)


def test_the_text_towers_vectors_are_the_models() -> None:
    model = load_checkpoint(SHIPPED)
    expected = embed_queries(model, model_tokenizer(model), TEXTS).detach().numpy()
    np.testing.assert_allclose(load_encoder("querylife-mini").encode(TEXTS), expected, atol=1e-5)


def test_other_weights_of_the_text_tower_have_another_identity(tmp_path: Path) -> None:
    same_tower, other = (
        changed(tmp_path / "same", "fusion.norm.weight"),
        changed(tmp_path / "other", "text.head.weight"),
    )
    assert tower_identity(other) != tower_identity(SHIPPED) == load_encoder(str(SHIPPED)).identity
    assert tower_identity(same_tower) == tower_identity(SHIPPED)


def test_a_checkpoint_without_the_text_towers_head_is_refused(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "part")
    weights = load_file(SHIPPED / "model.safetensors")
    del weights["text.head.weight"]
    save_file(weights, tmp_path / "part" / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"missing or unknown weights of the text tower: head\.weight"):
        load_encoder(str(tmp_path / "part"))


def test_texts_asked_for_at_once_are_encoded_once() -> None:
    encoder = load_encoder("minilm")
    seen: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return encoder.encode(texts)

    async def scenario() -> list[np.ndarray]:
        embedder = ThreadedEmbedder(type(encoder)("counted", "0", encode))  # type: ignore[arg-type]
        return list(await asyncio.gather(embedder.embed(TEXTS), embedder.embed(TEXTS[1:]), embedder.embed(TEXTS)))

    first, second, third = asyncio.run(scenario())
    assert sorted(seen) == sorted(TEXTS)
    np.testing.assert_array_equal(first, third)
    np.testing.assert_array_equal(first[1:], second)


def test_a_recorded_generator_asks_for_what_its_file_lacks_only(tmp_path: Path) -> None:
    engine, started = WordGenerator(), []

    def start() -> WordGenerator:
        started.append(1)
        return engine

    def ask(made_by: str, *titles: str) -> list[Generated]:
        async def scenario() -> list[Generated]:
            recorded = CachedGenerator(tmp_path / "descriptions.jsonl", made_by, start)  # type: ignore[arg-type]
            return [await recorded.generate(f"Title: {title}\nProduct:\n", None) for title in titles]

        return asyncio.run(scenario())

    first = ask("words@1", "red dress", "blue shirt")
    again = ask("words@1", "red dress", "blue shirt")
    assert (engine.seen, len(started)) == (["red dress", "blue shirt"], 1)
    assert [json.loads(each.text) for each in again] == [json.loads(each.text) for each in first]
    ask("words@2", "red dress")
    assert (engine.seen[2:], len(started)) == (["red dress"], 2)
