"""What the OpenAPI document says holds, for right and wrong requests that schemathesis makes up."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method

from querylife_gateway.openapi import document

# A text that fits the schema may still be empty for the model, and a picture broken: those are 400. unsupported_method
# is a test of its own below.
EXCLUDED = [positive_data_acceptance, unsupported_method]
schema = schemathesis.openapi.from_dict(document())


@schema.parametrize()
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described(case, gateway):
    response = case.call(base_url=gateway.url)
    if response.status_code != 504:  # what a made-up time limit of a millisecond deserves
        case.validate_response(response, excluded_checks=EXCLUDED)


def test_the_gateway_serves_the_document(gateway):
    with gateway.client() as http:
        assert http.get("/openapi.json").json() == document()


@pytest.mark.parametrize("path", ["/v1/embeddings", "/rerank"])
def test_another_method_is_refused(gateway, path):
    with gateway.client() as http:
        answer = http.get(path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json()["error"]["type"] == "invalid_request_error"
