"""Between protobuf messages and the pipeline's values."""

from genfilt_protocol import genfilt_pb2 as pb
from genfilt_server.generation.pipeline import Described, Failure, Judged, Mask, Product, Usage
from genfilt_server.generation.prompts import Description
from genfilt_server.judge.evidence import Judgement, Verdict

VERDICTS = {
    Verdict.MATCH: pb.VERDICT_MATCH,
    Verdict.NO_MATCH: pb.VERDICT_NO_MATCH,
    Verdict.ABSTAIN: pb.VERDICT_ABSTAIN,
}


def product(message: pb.Product) -> Product:
    return Product(message.title, message.image, message.product_type)


def item_error(failure: Failure) -> pb.ItemError:
    return pb.ItemError(fault=failure.fault, detail=failure.detail)


def usage(used: Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=used.prompt_tokens, cached_tokens=used.cached_tokens, completion_tokens=used.completion_tokens
    )


def description(found: Description) -> pb.Description:
    return pb.Description(product_type=found.product_type, attributes=found.attributes())


def describe_result(found: Described | Failure) -> pb.DescribeResult:
    if isinstance(found, Failure):
        return pb.DescribeResult(error=item_error(found))
    return pb.DescribeResult(description=description(found.description), usage=usage(found.usage))


def judge_result(found: Judged | Failure) -> pb.JudgeResult:
    if isinstance(found, Failure):
        return pb.JudgeResult(error=item_error(found))
    judgement = pb.Judgement(
        verdict=VERDICTS[found.judgement.verdict],
        probability=found.judgement.probability,
        description=description(found.description),
    )
    return pb.JudgeResult(judgement=judgement, usage=usage(found.usage))


def filter_response(mask: Mask, provenance: pb.Provenance) -> pb.FilterResponse:
    cells: list[Judgement] = [cell for row in mask.judgements for cell in row]
    return pb.FilterResponse(
        verdicts=[VERDICTS[cell.verdict] for cell in cells],
        probabilities=[cell.probability for cell in cells],
        query_errors={place: item_error(failure) for place, failure in mask.query_failures.items()},
        product_errors={place: item_error(failure) for place, failure in mask.product_failures.items()},
        usage=usage(mask.usage),
        provenance=provenance,
    )
