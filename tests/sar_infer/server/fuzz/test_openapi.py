"""The OpenAPI document holds: valid and invalid requests made from it get the answers that it documents."""

from __future__ import annotations

import httpx2
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import missing_required_header, positive_data_acceptance
from support.examples import examples
from support.pictures import jpeg
from support.servers import Server

load_all_checks()
_PICTURES = st.sampled_from([jpeg(), jpeg()[:300], b"x"])
for _kind in ("image/jpeg", "image/png", "image/webp"):
    schemathesis.openapi.media_type(_kind, _PICTURES)
schemathesis.openapi.media_type("application/octet-stream", st.binary(max_size=300))
_EXCLUDED = [
    positive_data_acceptance,  # no schema says what is base64 of an image, or a class name
    missing_required_header,
]


def operations(server: Server) -> list[schemathesis.openapi.APIOperation]:  # type: ignore[name-defined]
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    return [result.ok() for result in schema.get_all_operations()]


@pytest.mark.slow
def test_answers_are_as_documented(keyed_server: Server) -> None:
    labels = set()
    for operation in operations(keyed_server):
        labels.add(operation.label)
        right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

        @hypothesis.seed(0)
        @settings(
            max_examples=examples(20),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(case=right | wrong)
        def answered(case: schemathesis.Case) -> None:
            answer = case.call(headers=keyed_server.headers)
            case.validate_response(answer, headers=keyed_server.headers, excluded_checks=_EXCLUDED)

        answered()
    assert {"POST /v1/classify", "PUT /v1/classes/{name}", "POST /v1/embeddings"} <= labels
    assert "Traceback" not in keyed_server.log.read_text()
    httpx2.post(f"{keyed_server.url}/v1/bank/rollback", json={"to": 0}, headers=keyed_server.headers)


def test_errors_before_a_route_is_reached_are_documented_everywhere(keyed_server: Server) -> None:
    for operation in operations(keyed_server):
        documented = set(operation.definition.raw["responses"])
        assert {"400", "408", "413", "415", "429", "500", "501", "504"} <= documented, operation.label
        if operation.path.startswith("/v1"):
            assert "401" in documented, operation.label
        if any(parameter["name"] == "bank" for parameter in operation.definition.raw.get("parameters", ())):
            assert "404" in documented, operation.label
