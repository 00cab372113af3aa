from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_MATCH: _ClassVar[Verdict]
    VERDICT_NO_MATCH: _ClassVar[Verdict]
    VERDICT_ABSTAIN: _ClassVar[Verdict]
VERDICT_UNSPECIFIED: Verdict
VERDICT_MATCH: Verdict
VERDICT_NO_MATCH: Verdict
VERDICT_ABSTAIN: Verdict

class Product(_message.Message):
    __slots__ = ("title", "image", "product_type")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_TYPE_FIELD_NUMBER: _ClassVar[int]
    title: bytes
    image: bytes
    product_type: bytes
    def __init__(self, title: _Optional[bytes] = ..., image: _Optional[bytes] = ..., product_type: _Optional[bytes] = ...) -> None: ...

class Pair(_message.Message):
    __slots__ = ("query", "product")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    query: bytes
    product: Product
    def __init__(self, query: _Optional[bytes] = ..., product: _Optional[_Union[Product, _Mapping]] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("generator", "prompt_version", "schema_version", "judge_version", "reads_images")
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    PROMPT_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    JUDGE_VERSION_FIELD_NUMBER: _ClassVar[int]
    READS_IMAGES_FIELD_NUMBER: _ClassVar[int]
    generator: str
    prompt_version: str
    schema_version: str
    judge_version: str
    reads_images: bool
    def __init__(self, generator: _Optional[str] = ..., prompt_version: _Optional[str] = ..., schema_version: _Optional[str] = ..., judge_version: _Optional[str] = ..., reads_images: bool = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("fault", "detail")
    FAULT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    fault: str
    detail: str
    def __init__(self, fault: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Description(_message.Message):
    __slots__ = ("product_type", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PRODUCT_TYPE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    product_type: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, product_type: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "cached_tokens", "completion_tokens")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("products",)
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    products: _containers.RepeatedCompositeFieldContainer[Product]
    def __init__(self, products: _Optional[_Iterable[_Union[Product, _Mapping]]] = ...) -> None: ...

class DescribeResult(_message.Message):
    __slots__ = ("description", "error", "usage")
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    description: Description
    error: ItemError
    usage: Usage
    def __init__(self, description: _Optional[_Union[Description, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("results", "provenance")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[DescribeResult]
    provenance: Provenance
    def __init__(self, results: _Optional[_Iterable[_Union[DescribeResult, _Mapping]]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class Judgement(_message.Message):
    __slots__ = ("verdict", "probability", "description")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    probability: float
    description: Description
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., probability: _Optional[float] = ..., description: _Optional[_Union[Description, _Mapping]] = ...) -> None: ...

class JudgeRequest(_message.Message):
    __slots__ = ("pairs",)
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[Pair]
    def __init__(self, pairs: _Optional[_Iterable[_Union[Pair, _Mapping]]] = ...) -> None: ...

class JudgeResult(_message.Message):
    __slots__ = ("judgement", "error", "usage")
    JUDGEMENT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    judgement: Judgement
    error: ItemError
    usage: Usage
    def __init__(self, judgement: _Optional[_Union[Judgement, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ...) -> None: ...

class JudgeResponse(_message.Message):
    __slots__ = ("results", "provenance")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[JudgeResult]
    provenance: Provenance
    def __init__(self, results: _Optional[_Iterable[_Union[JudgeResult, _Mapping]]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class FilterRequest(_message.Message):
    __slots__ = ("queries", "products")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedScalarFieldContainer[bytes]
    products: _containers.RepeatedCompositeFieldContainer[Product]
    def __init__(self, queries: _Optional[_Iterable[bytes]] = ..., products: _Optional[_Iterable[_Union[Product, _Mapping]]] = ...) -> None: ...

class FilterResponse(_message.Message):
    __slots__ = ("verdicts", "probabilities", "query_errors", "product_errors", "usage", "provenance")
    class QueryErrorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: ItemError
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...
    class ProductErrorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: ItemError
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    QUERY_ERRORS_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_ERRORS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedScalarFieldContainer[Verdict]
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    query_errors: _containers.MessageMap[int, ItemError]
    product_errors: _containers.MessageMap[int, ItemError]
    usage: Usage
    provenance: Provenance
    def __init__(self, verdicts: _Optional[_Iterable[_Union[Verdict, str]]] = ..., probabilities: _Optional[_Iterable[float]] = ..., query_errors: _Optional[_Mapping[int, ItemError]] = ..., product_errors: _Optional[_Mapping[int, ItemError]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class DescribeItem(_message.Message):
    __slots__ = ("id", "product")
    ID_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    id: str
    product: Product
    def __init__(self, id: _Optional[str] = ..., product: _Optional[_Union[Product, _Mapping]] = ...) -> None: ...

class DescribeItemResult(_message.Message):
    __slots__ = ("id", "result", "provenance")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    result: DescribeResult
    provenance: Provenance
    def __init__(self, id: _Optional[str] = ..., result: _Optional[_Union[DescribeResult, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class JudgeItem(_message.Message):
    __slots__ = ("id", "pair")
    ID_FIELD_NUMBER: _ClassVar[int]
    PAIR_FIELD_NUMBER: _ClassVar[int]
    id: str
    pair: Pair
    def __init__(self, id: _Optional[str] = ..., pair: _Optional[_Union[Pair, _Mapping]] = ...) -> None: ...

class JudgeItemResult(_message.Message):
    __slots__ = ("id", "result", "provenance")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    result: JudgeResult
    provenance: Provenance
    def __init__(self, id: _Optional[str] = ..., result: _Optional[_Union[JudgeResult, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class FilterItem(_message.Message):
    __slots__ = ("id", "request")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    id: str
    request: FilterRequest
    def __init__(self, id: _Optional[str] = ..., request: _Optional[_Union[FilterRequest, _Mapping]] = ...) -> None: ...

class FilterItemResult(_message.Message):
    __slots__ = ("id", "response", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    response: FilterResponse
    error: ItemError
    def __init__(self, id: _Optional[str] = ..., response: _Optional[_Union[FilterResponse, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class MetadataRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
