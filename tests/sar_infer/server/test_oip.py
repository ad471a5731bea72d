from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="needs the extra serve")
from sar_infer.server.oip import read_request
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits


def request(*inputs: dict[str, Any], data: bytes = b"") -> tuple[bytes, str]:
    header = json.dumps({"inputs": inputs}).encode()
    return header + data, str(len(header))


@given(body=st.binary(max_size=200), length=st.none() | st.integers(-5, 300).map(str) | st.text(max_size=4))
def test_any_body_is_a_call_or_a_problem(body: bytes, length: str | None) -> None:
    with pytest.raises(Problem):
        read_request(body, length, Limits())


@given(sizes=st.lists(st.none() | st.integers(-2, 20), max_size=3), rest=st.binary(max_size=30))
def test_binary_data_is_given_out_in_order_and_to_the_last_byte(sizes: list[int | None], rest: bytes) -> None:
    inputs = [
        {"name": str(i), "shape": [], "datatype": "BYTES", "parameters": {"binary_data_size": s}}
        for i, s in enumerate(sizes)
    ]
    counted = [size for size in sizes if size is not None and size >= 0]
    body, length = request(*inputs, data=rest)
    if inputs and len(counted) == len(sizes) and sum(counted) == len(rest):
        binary_data = [bytes(one._binary) for one in read_request(body, length, Limits()).inputs]
        assert b"".join(binary_data) == rest
        assert [*map(len, binary_data)] == sizes
    else:
        with pytest.raises(Problem):
            read_request(body, length, Limits())
