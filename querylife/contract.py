"""The tensor contract: the only place that spells model names, tensor names, dtypes, shapes and limits.

Export, config.pbtxt, backends and client follow it. Shapes are per item: the batch axis is left out, and None
stands for an axis whose length varies or belongs to the checkpoint (its width, its image size). A missing title,
image or product type is an empty byte string.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from querylife.errors import ContractError

MAX_BATCH = 64  # items in one request, and in one batch of a tower
MAX_TEXT_CHARACTERS = 4096  # in a query, a title or a product type
MAX_IMAGE_BYTES = 10 * 1024 * 1024  # encoded
MAX_IMAGE_PIXELS = 32_000_000  # decoded, all frames of the first picture
MAX_DECODE_S = 2.0  # per image, of processor time
MAX_REQUEST_BYTES = 64 * 1024 * 1024  # all tensors of one request together
PIXELS_VERSION = 1  # changes whenever the same encoded picture may give other pixels (preprocessing/image.py)
# Where Triton looks for "Bearer <token>": it compares headers of this prefix only.
TOKEN_HEADER = "triton-grpc-protocol-authorization"


class DType(Enum):
    """Triton's name for an element type, and numpy's."""

    BOOL = ("BOOL", np.dtype(np.bool_))
    UINT8 = ("UINT8", np.dtype(np.uint8))
    INT32 = ("INT32", np.dtype(np.int32))
    FP32 = ("FP32", np.dtype(np.float32))
    BYTES = ("BYTES", np.dtype(np.object_))

    @property
    def triton(self) -> str:
        """The name in Triton's gRPC protocol, for example "FP32"."""
        return self.value[0]

    @property
    def config(self) -> str:
        """The name in config.pbtxt, for example "TYPE_FP32"."""
        return "TYPE_STRING" if self is DType.BYTES else f"TYPE_{self.triton}"

    @property
    def numpy(self) -> np.dtype[np.generic]:
        return self.value[1]


@dataclass(frozen=True)
class Tensor:
    """One named tensor; shape is per item."""

    name: str
    dtype: DType
    shape: tuple[int | None, ...]

    def check(self, array: NDArray[np.generic]) -> None:
        """Raise ContractError unless array is [batch, *shape] of this dtype."""
        if array.dtype != self.dtype.numpy:
            raise ContractError(f"{self.name}: found dtype {array.dtype}, want {self.dtype.numpy}")
        shape = array.shape[1:]
        fits = len(shape) == len(self.shape) and all(
            want in (None, have) for want, have in zip(self.shape, shape, strict=True)
        )
        if array.ndim == 0 or not fits:
            want = ", ".join("any" if axis is None else str(axis) for axis in self.shape)
            raise ContractError(f"{self.name}: found shape {list(array.shape)}, want [batch, {want}]")


@dataclass(frozen=True)
class Model:
    """One folder of the model repository.

    after: optional inputs that nobody reads. An ensemble feeds them, so that its steps go one after another.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    after: tuple[Tensor, ...] = ()

    def input(self, name: str) -> Tensor:
        return next(tensor for tensor in self.inputs if tensor.name == name)

    def output(self, name: str) -> Tensor:
        return next(tensor for tensor in self.outputs if tensor.name == name)


class TokenRole:
    """What a token position holds."""

    PADDING = 0
    SPECIAL = 1  # begin and separator tokens
    TEXT = 2  # a query or a title
    PRODUCT_TYPE = 3


# What a caller sends.
QUERY = Tensor("query", DType.BYTES, (1,))  # UTF-8
TITLE = Tensor("title", DType.BYTES, (1,))  # UTF-8, empty where missing
PRODUCT_TYPE = Tensor("product_type", DType.BYTES, (1,))  # UTF-8, empty where missing
IMAGE = Tensor("image", DType.BYTES, (1,))  # an encoded picture, empty where missing
# In its stead, from callers that decode (querylife.preprocessing.image.decode): RGB planes of the lock's image_size.
DECODED_IMAGE = Tensor("decoded_image", DType.UINT8, (3, None, None))
HAS_IMAGE = Tensor("has_image", DType.BOOL, (1,))  # false where a picture is missing; its planes are not looked at

# What a caller gets. A fault is "" or "fault: detail" (querylife.errors.ItemError).
QUERY_EMBEDDING = Tensor("query_embedding", DType.FP32, (None,))  # unit, or zeros where nothing was usable
PRODUCT_EMBEDDING = Tensor("product_embedding", DType.FP32, (None,))  # unit, or zeros where nothing was usable
SCORE = Tensor("score", DType.FP32, (1,))  # probability of relevance, or NaN where nothing was usable
QUERY_USED = Tensor("query_used", DType.BOOL, (1,))
TITLE_USED = Tensor("title_used", DType.BOOL, (1,))
IMAGE_USED = Tensor("image_used", DType.BOOL, (1,))
QUERY_FAULT = Tensor("query_fault", DType.BYTES, (1,))
TEXT_FAULT = Tensor("text_fault", DType.BYTES, (1,))
IMAGE_FAULT = Tensor("image_fault", DType.BYTES, (1,))

# Between the steps.
TEXT = Tensor("text", DType.BYTES, (1,))
TEXT_USED = Tensor("text_used", DType.BOOL, (1,))
TOKEN_IDS = Tensor("token_ids", DType.INT32, (None,))
TOKEN_ROLES = Tensor("token_roles", DType.INT32, (None,))  # one TokenRole per token
PIXELS = Tensor("pixels", DType.UINT8, (3, None, None))  # RGB planes
TEXT_STATES = Tensor("text_states", DType.FP32, (None, None))  # [tokens, text width]
TEXT_EMBEDDING = Tensor("text_embedding", DType.FP32, (None,))
PATCH_STATES = Tensor("patch_states", DType.FP32, (None, None))  # [patches, vision width]
IMAGE_EMBEDDING = Tensor("image_embedding", DType.FP32, (None,))

# Two models, because Triton batches no request that has an optional input with one that lacks it.
TOKENIZE_QUERY = Model("tokenize_query", inputs=(TEXT,), outputs=(TOKEN_IDS, TOKEN_ROLES, TEXT_USED, TEXT_FAULT))
TOKENIZE = Model("tokenize", inputs=(TEXT, PRODUCT_TYPE), outputs=TOKENIZE_QUERY.outputs, after=(QUERY_EMBEDDING,))
DECODE_IMAGE = Model(
    "decode_image", inputs=(IMAGE,), outputs=(PIXELS, IMAGE_USED, IMAGE_FAULT), after=(TEXT_EMBEDDING,)
)
CHECK_PIXELS = Model(
    "check_pixels", inputs=(DECODED_IMAGE, HAS_IMAGE), outputs=(PIXELS, IMAGE_USED), after=(TEXT_EMBEDDING,)
)
TEXT_TOWER = Model("text_tower", inputs=(TOKEN_IDS, TOKEN_ROLES), outputs=(TEXT_STATES, TEXT_EMBEDDING))
VISION_TOWER = Model("vision_tower", inputs=(PIXELS, IMAGE_USED), outputs=(PATCH_STATES, IMAGE_EMBEDDING))
FUSION_TOWER = Model(
    "fusion_tower",
    inputs=(TEXT_STATES, TOKEN_ROLES, TEXT_EMBEDDING, PATCH_STATES, IMAGE_EMBEDDING, IMAGE_USED),
    outputs=(PRODUCT_EMBEDDING,),
)
RELEVANCE = Model("relevance", inputs=(QUERY_EMBEDDING, PRODUCT_EMBEDDING), outputs=(SCORE,))

EMBED_QUERY = Model("embed_query", inputs=(QUERY,), outputs=(QUERY_EMBEDDING, QUERY_USED, QUERY_FAULT))
EMBED_PRODUCT = Model(
    "embed_product",
    inputs=(TITLE, IMAGE, PRODUCT_TYPE),
    outputs=(PRODUCT_EMBEDDING, TITLE_USED, IMAGE_USED, TEXT_FAULT, IMAGE_FAULT),
)
EMBED_DECODED_PRODUCT = Model(
    "embed_decoded_product",
    inputs=(TITLE, DECODED_IMAGE, HAS_IMAGE, PRODUCT_TYPE),
    outputs=(PRODUCT_EMBEDDING, TITLE_USED, IMAGE_USED, TEXT_FAULT),
)
SCORE_PRODUCTS = Model(
    "score",
    inputs=(QUERY, TITLE, IMAGE, PRODUCT_TYPE),
    outputs=(SCORE, QUERY_USED, TITLE_USED, IMAGE_USED, QUERY_FAULT, TEXT_FAULT, IMAGE_FAULT),
)

# A smaller text tower for queries alone, where a repository has one. It has no folder: embed_query runs it.
QUERY_TOWER = Model("query_tower", inputs=TEXT_TOWER.inputs, outputs=TEXT_TOWER.outputs)

TOWERS = (TEXT_TOWER, VISION_TOWER, FUSION_TOWER)
STEPS = (TOKENIZE_QUERY, TOKENIZE, DECODE_IMAGE, CHECK_PIXELS, *TOWERS, RELEVANCE)
ENSEMBLES = (EMBED_QUERY, EMBED_PRODUCT, EMBED_DECODED_PRODUCT, SCORE_PRODUCTS)
MODELS = (*STEPS, *ENSEMBLES)
