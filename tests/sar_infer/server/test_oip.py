from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="needs the extra serve")
from sar_infer.server.oip import InferInput, read_request
from sar_infer.server.problems import Problem
from sar_infer.server.settings import Limits

JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=8)


def tensor(shape: list[int], data: list[Any] | bytes, datatype: str = "FP32") -> InferInput:
    """Return an input with JSON data, or with binary data that it has taken."""
    fields: dict[str, Any] = {"name": "F", "shape": shape, "datatype": datatype}
    if isinstance(data, list):
        return InferInput(**fields, data=data)
    one = InferInput(**fields, parameters={"binary_data_size": len(data)})
    assert not one.take_binary(memoryview(data))
    return one


def request(*inputs: dict[str, Any], data: bytes = b"") -> tuple[bytes, str]:
    header = json.dumps({"inputs": inputs}).encode()
    return header + data, str(len(header))


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_json_data_is_flat_or_nested(data: list[Any]) -> None:
    assert tensor([2, 2], data).values().tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("data", [[[1, 2], 3], [1, "2"], [{}], [[], [1]], [1] * 3, [[1, 2]], [[[1]], [[2]]], [1, [2]]])
def test_json_data_that_is_no_tensor(data: list[Any]) -> None:
    with pytest.raises(Problem, match="input 'F'"):
        tensor([2, 1], data).values()


@given(body=st.binary(max_size=200), length=st.none() | st.integers(-5, 300).map(str) | st.text(max_size=4))
def test_any_body_is_a_call_or_a_problem(body: bytes, length: str | None) -> None:
    with pytest.raises(Problem):
        read_request(body, length, Limits())


@given(sizes=st.lists(st.none() | st.integers(-2, 20), max_size=3), rest=st.binary(max_size=30))
def test_binary_data_is_given_out_in_order_and_to_the_last_byte(sizes: list[int | None], rest: bytes) -> None:
    inputs = [
        {"name": str(i), "shape": [], "datatype": "FP32", "parameters": {"binary_data_size": s}}
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
