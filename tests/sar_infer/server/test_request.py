from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
from sar_infer.doors.open_inference import read_tensors
from sar_infer.server.problems import Problem
from sar_infer.server.request import parse
from sar_infer.server.routes.classify import ClassifyRequest
from sar_infer.server.settings import Limits

LIMITS = Limits(classes=1000)


@pytest.mark.parametrize("piece", [b"1,", b"[", b"{", b'"a":', b"[1],", b'{"a":1},', b'{"":[{'])
def test_json_of_too_many_pieces_is_refused_before_it_is_parsed(piece: bytes) -> None:
    for read in (lambda body: parse(ClassifyRequest, body, LIMITS), lambda body: read_tensors(body, LIMITS)):
        with pytest.raises(Problem, match="at most [0-9]+ values") as refused:
            read(piece * 2**19)  # it is no JSON either, which a parser would say
        assert refused.value.code == "invalid-request"


def test_what_the_limits_allow_has_few_enough_pieces() -> None:
    phrases = {f"class {i}, a {{thing}}: [it]": ["a, b"] for i in range(1000)}
    body = ClassifyRequest(images=["data:image/jpeg;base64,AAAA"] * 32, classes=phrases).model_dump_json().encode()
    assert parse(ClassifyRequest, body, LIMITS).classes == phrases
