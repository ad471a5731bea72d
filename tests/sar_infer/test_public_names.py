from __future__ import annotations

import pytest

import sar_infer


@pytest.mark.parametrize("name", sar_infer.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(sar_infer, name) is not None


def test_other_names_are_unknown() -> None:
    with pytest.raises(AttributeError, match="'Owl'"):
        sar_infer.Owl  # noqa: B018
