"""What callers send: each request as a pydantic model, which checks it and describes it in the OpenAPI document."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from querylife_gateway.errors import HttpError

Request = TypeVar("Request", bound=BaseModel)

# What pydantic says of the types of a union that the caller did not mean.
_OTHER_BRANCH = ("string_type", "model_type", "model_attributes_type", "list_type")

# Fields that other services know and this one does not are ignored, as they do.
_LENIENT = ConfigDict(strict=True, extra="ignore")


class ProductInput(BaseModel):
    """A product, or a picture alone. image: a data URI, or the URL of a public picture."""

    model_config = ConfigDict(strict=True, extra="forbid")

    text: str | None = Field(None, description="another name of title")
    title: str | None = None
    image: str | None = Field(None, description="`data:image/...;base64,...`, or an http or https URL")
    product_type: str | None = None


Text = Annotated[str, Field(description="a text, or a picture as `data:image/...;base64,...`")]


class EmbeddingsRequest(BaseModel):
    """OpenAI's POST /v1/embeddings. Lists of token ids are not taken.

    input_type: "query" for a shopper's words, "document" for products; None: texts are queries, all else is products.
    dimensions: keep the first so many numbers, scaled to unit length.
    """

    model_config = _LENIENT

    input: Text | ProductInput | Annotated[list[Text | ProductInput], Field(min_length=1)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=65536)] | None = None
    input_type: Literal["query", "document"] | None = None
    user: str | None = None

    @property
    def items(self) -> list[str | ProductInput]:
        return list(self.input) if isinstance(self.input, list) else [self.input]


class RerankRequest(BaseModel):
    """POST /rerank. `documents` as Cohere and Jina have it, or `texts` as Text Embeddings Inference has it.

    The answer has the shape of the same service. Texts beyond the model's limit are cut where documents are given, or
    where truncate says so.
    """

    model_config = _LENIENT

    query: str
    documents: Annotated[list[str | ProductInput], Field(min_length=1)] | None = None
    texts: Annotated[list[str], Field(min_length=1)] | None = None
    model: str | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = False
    return_text: bool | None = False
    raw_scores: Literal[False] | None = Field(False, description="scores are probabilities; there are no others")
    truncate: bool | None = False

    @property
    def items(self) -> list[str | ProductInput]:
        """Raises HttpError 400 unless exactly one of documents and texts is there."""
        if (self.documents is None) == (self.texts is None):
            raise HttpError(400, "found both or neither, want either documents or texts", param="documents")
        return list(self.documents if self.documents is not None else self.texts or [])


Scalar = str | int | float | bool


class SearchRequest(BaseModel):
    """POST /v1/search. where: conditions on the index's columns: column to value, to a list of values, or to operators

    (`eq`, `ne`, `lt`, `lte`, `gt`, `gte`, `in`). correct: also search for the query without its typing errors, and
    answer with what is found better. hybrid: fuse the ranking by vectors with one by words. collection: another
    one of the store, while a new model is rolled out.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    query: str
    k: Annotated[int, Field(ge=1, le=200)] = 20
    where: dict[str, Scalar | list[Scalar] | dict[str, Scalar | list[Scalar]]] | None = None
    correct: bool = True
    hybrid: bool = False
    collection: Literal["active", "candidate", "previous"] = "active"

    @property
    def items(self) -> list[str]:
        return [self.query]


class WhyRequest(BaseModel):
    """POST /v1/why. id: of a product in the index."""

    model_config = ConfigDict(strict=True, extra="forbid")

    query: str
    id: str

    @property
    def items(self) -> list[str]:
        return [self.query]


Rater = Annotated[str, Field(min_length=1, max_length=100)]


class NextPairRequest(BaseModel):
    """POST /v1/label/next. rater: a name that the rater chose."""

    model_config = ConfigDict(strict=True, extra="forbid")

    rater: Rater

    @property
    def items(self) -> list[str]:
        return [self.rater]


class JudgementRequest(BaseModel):
    """POST /v1/label/judgements. grade: 0 (wrong) to 3 (exactly this); null where the rater cannot say."""

    model_config = ConfigDict(strict=True, extra="forbid")

    rater: Rater
    query: str
    id: str
    grade: Annotated[int, Field(ge=0, le=3)] | None
    seconds: Annotated[float, Field(ge=0, le=86400)] = 0.0

    @property
    def items(self) -> list[str]:
        return [self.id]


class SessionRequest(BaseModel):
    """POST /session. key: an API key, exchanged for a cookie that the pages send."""

    model_config = ConfigDict(strict=True, extra="forbid")

    key: str


def parse(model: type[Request], body: bytes) -> Request:
    """Raises HttpError 400, naming the field at fault."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        fault = next((each for each in faults if each["type"] not in _OTHER_BRANCH), faults[0])
        param = ".".join(str(part) for part in fault["loc"] if not _is_branch(part)) or None
        raise HttpError(400, f"{param or 'body'}: {fault['msg']}", param=param) from error


def _is_branch(part: int | str) -> bool:
    """Whether a step of pydantic's location names a type of a union, which is no field of the caller's."""
    return isinstance(part, str) and (part in ("str", "ProductInput") or part.startswith("list["))
