"""Conversion between protobuf messages and the pipeline's values."""

from genfilt_protocol import genfilt_pb2 as pb
from genfilt_server.generation.pipeline import Described, Failure, Judged, Mask, RequestedProduct, Usage
from genfilt_server.generation.prompts import Description
from genfilt_server.judge.evidence import Judgement, Verdict

VERDICTS = {
    Verdict.MATCH: pb.VERDICT_MATCH,
    Verdict.NO_MATCH: pb.VERDICT_NO_MATCH,
    Verdict.ABSTAIN: pb.VERDICT_ABSTAIN,
}


def product(message: pb.Product) -> RequestedProduct:
    return RequestedProduct(message.title, message.image, message.product_type)


def item_error(failure: Failure) -> pb.ItemError:
    return pb.ItemError(fault=failure.fault, detail=failure.detail)


def usage(used: Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=used.prompt_tokens, cached_tokens=used.cached_tokens, completion_tokens=used.completion_tokens
    )


def description(value: Description) -> pb.Description:
    return pb.Description(product_type=value.product_type, attributes=value.attributes())


def describe_result(outcome: Described | Failure) -> pb.DescribeResult:
    if isinstance(outcome, Failure):
        return pb.DescribeResult(error=item_error(outcome))
    return pb.DescribeResult(description=description(outcome.description), usage=usage(outcome.usage))


def judge_result(outcome: Judged | Failure) -> pb.JudgeResult:
    if isinstance(outcome, Failure):
        return pb.JudgeResult(error=item_error(outcome))
    judgement = pb.Judgement(
        verdict=VERDICTS[outcome.judgement.verdict],
        probability=outcome.judgement.probability,
        description=description(outcome.description),
    )
    return pb.JudgeResult(judgement=judgement, usage=usage(outcome.usage))


def filter_response(mask: Mask, provenance: pb.Provenance) -> pb.FilterResponse:
    cells: list[Judgement] = [cell for row in mask.judgements for cell in row]
    return pb.FilterResponse(
        verdicts=[VERDICTS[cell.verdict] for cell in cells],
        probabilities=[cell.probability for cell in cells],
        query_errors={index: item_error(failure) for index, failure in mask.query_failures.items()},
        product_errors={index: item_error(failure) for index, failure in mask.product_failures.items()},
        usage=usage(mask.usage),
        provenance=provenance,
    )
