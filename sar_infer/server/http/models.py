"""Requests and answers of our own protocol as pydantic models: they check JSON bodies and make the OpenAPI page."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from sar_infer.results import Unknown

Mode = Literal["bank", "extend", "only"]
"""Choose from the bank, from the bank and the names given, or from the names given alone."""
Coverage = Annotated[float, Field(gt=0, lt=1)]
UNKNOWN = "say whether the best class is to be believed, by its score or by the energy of all"
COVERAGE = "give the set of classes that holds the true one with this probability, as 0.9"
EXPLAIN = "give the reasons for the best class"
MAX_TOP_K = 1000
MOST_ITEMS = 20_000
"""Of any list of a body, so that its check is short; what a server takes is in its ``Limits``."""


class ClassifyOptions(BaseModel):
    """What a call of any form may say in its query."""

    model_config = ConfigDict(extra="forbid")

    classes: list[str] = Field([], description="names to add to the bank's; may stand several times")
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] | None = Field(None, description="classes to answer; 5 by default")
    mode: Mode | None = Field(None, description="default: extend where classes are given, else bank")
    unknown: Unknown | None = Field(None, description=UNKNOWN)
    coverage: Coverage | None = Field(None, description=COVERAGE)
    explain: bool | None = Field(None, description=EXPLAIN)


Texts = Annotated[list[str], Field(max_length=MOST_ITEMS, fail_fast=True)]


class ClassifyRequest(BaseModel):
    """The JSON form of a call."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"images": ["iVBORw0KGgo…"], "classes": ["red mug", "tea pot"], "top_k": 3}]},
    )

    images: Texts = Field(min_length=1, description="base64, or data:image/…;base64,… URIs")
    classes: Texts | dict[str, Texts] | None = Field(
        None, description="names to add to the bank's, or phrases by name, which are averaged"
    )
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] | None = None
    mode: Mode | None = Field(None, description="default: extend where classes are given, else bank")
    unknown: Unknown | None = Field(None, description=UNKNOWN)
    coverage: Coverage | None = Field(None, description=COVERAGE)
    explain: bool | None = Field(None, description=EXPLAIN)

    @field_validator("classes", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        """Say it plainly, where the union of types would say it twice and in its own words."""
        if value is not None and not isinstance(value, list | dict):
            raise PydanticCustomError("classes", "expected a list of names, or phrases by name")
        return value


class Prediction(BaseModel):
    """One class for one picture."""

    rank: int = Field(description="1 is the best")
    label: str
    score: float = Field(description="softmax over the classes of the call, 0..1")
    logit: float
    similarity: float = Field(description="cosine between picture and class")
    source: Literal["bank", "extended"] = Field(description="extended: the name came with the call")
    calibrated: bool = Field(description="whether the score was calibrated on photos of this class")


class Explanation(BaseModel):
    """Why the best class was chosen."""

    margin: float | None = Field(description="its score less the runner-up's")
    runner_up: str | None
    energy: float = Field(description="over all classes of the call; the lower, the more familiar the picture")
    nearest: list[tuple[str, float]] = Field(description="classes nearest to the best one, with their cosines")
    background: str | None = Field(description="the background class that beats every other")


class Result(BaseModel):
    """One picture, in the order of the call."""

    image: str
    predictions: list[Prediction]
    error: str | None = Field(description="why this picture has no predictions")
    error_code: str | None
    branch: Literal["text", "head+text"]
    unknown: bool | None = Field(None, description="there where it was asked for, or a background class won")
    reason: str | None = Field(None, description="there with unknown: why")
    label_set: list[str] | None = Field(None, description="there where coverage was asked for")
    explanation: Explanation | None = Field(None, description="there where it was asked for")


class ClassifyAnswer(BaseModel):
    """The answer to a call."""

    results: list[Result]
    classes: int = Field(description="how many classes there were to choose from")
    bundle: str = Field(description="digest of the bundle's manifest")
    bank: str = Field(description="digest of the bank's content, also its ETag")
    provider: str
    timings_ms: dict[str, float]
    request_id: str


class ProblemAnswer(BaseModel):
    """RFC 9457, ``application/problem+json``."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class ErrorAnswer(BaseModel):
    """The error of Open Inference Protocol v2 and of Hugging Face's API."""

    error: str


class ClassEntry(BaseModel):
    """One class of the bank."""

    name: str
    origin: Literal["bundle", "added"]
    phrases: list[str]


class ClassList(BaseModel):
    """The bank, or a part of it, or what was removed from it."""

    classes: list[ClassEntry]
    count: int = Field(description="of all that were asked for, on whatever page")
    removed: int = Field(description="classes of the bundle that were removed; removed=true lists them")
    bank: str


class ClassChange(BaseModel):
    """What to encode in place of a name."""

    model_config = ConfigDict(extra="forbid")

    phrases: Annotated[Texts, Field(min_length=1)] | None = None
