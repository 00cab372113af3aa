"""Pictures decoded by DALI: decode_image's work as a serialised pipeline for Triton's dali backend.

It takes less than decode_image promises. DALI has one outcome per batch, so one picture that it cannot decode fails all
that came with it; it knows no GIF and no AVIF, shows what transparency hides, and has no limit on pixels or time. So it
serves an ensemble of its own, embed_product_dali, for pictures that are known to be there and sound.
"""

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

from querylife.catalog.sample_catalog import drawn_products
from querylife.contract import DECODE_IMAGE, EMBED_PRODUCT, IMAGE, IMAGE_USED, MAX_BATCH, PIXELS
from querylife.errors import ArtifactError, ParityError
from querylife.preprocessing.image import BACKGROUND, decode
from querylife_build.config_check import Config, read_config

log = logging.getLogger(__name__)

REQUIREMENT = "make dali"
MODEL_FILE = "model.dali"
DECODER = f"{DECODE_IMAGE.name}_dali"
ENSEMBLE = f"{EMBED_PRODUCT.name}_dali"
DEVICES = {"cpu": "KIND_CPU", "gpu": "KIND_GPU"}  # where the pipeline runs -> Triton's name for it
THREADS = 4

# Levels of 255, against decode_image, on the drawn catalogue. Both resize with the same cubic filter and antialiasing;
# what remains is rounding, and JPEG, which decode_image may decode at a reduced scale.
MAX_MEAN_DIFFERENCE = 0.25  # of one picture
MAX_DIFFERENCE = 16.0  # of one pixel's channel


def load_dali() -> Any:
    """The nvidia.dali module. Raises ArtifactError where it is not installed."""
    try:
        return importlib.import_module("nvidia.dali")
    except ImportError as error:
        raise ArtifactError(f"found no DALI ({error}), want it: {REQUIREMENT}") from error


def decoder_pipeline(image_size: int, device: str, batch: int = MAX_BATCH) -> Any:
    """Encoded bytes to pixels [3, image_size, image_size] uint8, as querylife.preprocessing.image
    makes them, and image_used.

    device: one of DEVICES; "gpu" needs a GPU even to be put together. Raises ArtifactError without DALI or the GPU.
    """
    dali = load_dali()
    fn, types = dali.fn, dali.types
    pipeline = dali.Pipeline(batch, THREADS, device_id=0 if device == "gpu" else None)
    with pipeline:
        encoded = fn.external_source(name=IMAGE.name, device="cpu", ndim=1, dtype=types.UINT8)
        decoder = "mixed" if device == "gpu" else "cpu"
        picture = fn.decoders.image(encoded, device=decoder, output_type=types.RGB)  # turned as EXIF says
        side = [image_size, image_size]
        fitted = fn.resize(
            picture,
            size=side,
            mode="not_larger",
            subpixel_scale=False,  # as Pillow: all of the picture goes into whole pixels
            interp_type=types.INTERP_CUBIC,
            antialias=True,
            dtype=types.UINT8,
        )
        centred = {"crop_pos_x": 0.5, "crop_pos_y": 0.5, "rounding": "truncate"}
        (white,) = set(BACKGROUND)  # of all three channels
        square = fn.crop(fitted, crop=side, **centred, out_of_bounds_policy="pad", fill_values=white)
        used = types.Constant(np.array([True]), dtype=types.BOOL, device="cpu")
        pipeline.set_outputs(fn.transpose(square, perm=[2, 0, 1]), used)
    try:
        pipeline.build()
    except RuntimeError as error:
        message = f"DALI {dali.__version__} cannot decode on the {device} here: {str(error)[:200]}"
        raise ArtifactError(message) from error
    return pipeline


def write_decoder(repository: Path, folder: Path, image_size: int, device: str) -> None:
    """Write the models decode_image_dali and embed_product_dali into folder, for Triton beside the repository.

    repository: whose embed_product is followed. Raises ArtifactError without DALI (or, for "gpu", without a GPU), and
    ParityError for pixels outside the tolerance.
    """
    pictures = [product.image for product in drawn_products() if product.image is not None]
    mean, largest = measure_parity(pictures, image_size, device)
    log.info("%s: on %d drawn pictures, mean %.3f of the worst, largest %.0f", DECODER, len(pictures), mean, largest)
    if mean > MAX_MEAN_DIFFERENCE or largest > MAX_DIFFERENCE:
        want = f"at most {MAX_MEAN_DIFFERENCE} and {MAX_DIFFERENCE:g}"
        raise ParityError(f"{DECODER}: found a mean difference of {mean:.3f} and a largest of {largest:g}, want {want}")
    version = folder / DECODER / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version / MODEL_FILE).write_bytes(decoder_pipeline(image_size, device).serialize())
    (folder / DECODER / "config.pbtxt").write_text(decoder_config(image_size, device))
    (folder / ENSEMBLE / "1").mkdir(
        parents=True, exist_ok=True
    )  # Triton wants a version, though an ensemble has no file
    ensemble = ensemble_config(read_config(repository / EMBED_PRODUCT.name / "config.pbtxt"))
    header = (
        "# Title, product type and a sound picture to the product's unit vector. Written by querylife-build dali.\n"
    )
    (folder / ENSEMBLE / "config.pbtxt").write_text(header + text_format.MessageToString(ensemble))


def measure_parity(pictures: Sequence[bytes], image_size: int, device: str) -> tuple[float, float]:
    """Differences from querylife.preprocessing.image, in levels of 255.

    Returns the mean of the worst picture, and the largest difference of any channel.
    """
    means, largest = [], 0.0
    for first in range(0, len(pictures), MAX_BATCH):
        batch = pictures[first : first + MAX_BATCH]
        decoded = run_decoder(decoder_pipeline(image_size, device, len(batch)), batch)
        want = np.stack([decode(picture, image_size, max_decode_s=60.0) for picture in batch])
        difference = np.abs(decoded.astype(np.int16) - want)
        means.append(float(difference.mean(axis=(1, 2, 3)).max()))
        largest = max(largest, float(difference.max()))
    return max(means), largest


def run_decoder(pipeline: Any, pictures: Sequence[bytes]) -> NDArray[np.uint8]:
    """[pictures, 3, side, side]. Raises RuntimeError, DALI's own, when any of the pictures cannot be decoded."""
    pipeline.build()
    pipeline.feed_input(IMAGE.name, [np.frombuffer(picture, np.uint8) for picture in pictures])
    pixels, _ = pipeline.run()
    batch = pixels.as_cpu() if hasattr(pixels, "as_cpu") else pixels
    return np.stack([np.asarray(batch.at(row)) for row in range(len(pictures))])


def decoder_config(image_size: int, device: str) -> str:
    """One encoded picture per request, as bytes; requests of all lengths share a batch."""
    return f"""# Sound encoded pictures to RGB planes, by DALI. Written by querylife-build dali.
backend: "dali"
max_batch_size: {MAX_BATCH}
input [
  {{ name: "{IMAGE.name}" data_type: TYPE_UINT8 dims: [ -1 ] allow_ragged_batch: true }}
]
output [
  {{ name: "{PIXELS.name}" data_type: {PIXELS.dtype.config} dims: [ 3, {image_size}, {image_size} ] }},
  {{ name: "{IMAGE_USED.name}" data_type: {IMAGE_USED.dtype.config} dims: [ 1 ] }}
]
instance_group {{ kind: {DEVICES[device]} count: 1 }}
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
"""


def ensemble_config(product: Config) -> Config:
    """embed_product with DALI's decoder: image is TYPE_UINT8, and nothing says that a picture is missing or broken."""
    changed = type(product)()
    changed.CopyFrom(product)
    _keep(changed.output, lambda tensor: tensor.name not in {tensor.name for tensor in DECODE_IMAGE.outputs})
    for tensor in changed.input:
        if tensor.name == IMAGE.name:
            tensor.data_type = model_config_pb2.DataType.Value("TYPE_UINT8")
            tensor.dims[:] = [-1]
    for step in changed.ensemble_scheduling.step:
        if step.model_name == DECODE_IMAGE.name:
            step.model_name = DECODER
            for missing in set(step.output_map) - {PIXELS.name, IMAGE_USED.name}:
                del step.output_map[missing]
            for after in DECODE_IMAGE.after:  # DALI's decoder has no such input: this ensemble's steps go side by side
                step.input_map.pop(after.name, None)
    return changed


def _keep(field: Any, wanted: Any) -> None:
    kept = [item for item in field if wanted(item)]
    del field[:]
    field.extend(kept)
