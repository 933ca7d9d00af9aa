"""What clients ask, as types; and the sentence that refuses what is none of these."""

import json
import math
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from heatmask.errors import HeatmaskError
from heatmask.serving.volume_file import RESULT_DTYPES, RESULT_EXTENSIONS


class RequestError(HeatmaskError):
    """A request is not what it must be."""


ImageName = Annotated[str, Field(min_length=1, max_length=300)]
ShortText = Annotated[str, Field(max_length=200)]
JobId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
ClientId = Annotated[ShortText, BeforeValidator(lambda value: "" if value is None else value)]


class Tag(StrEnum):
    """What a label is: a person's, or a model's."""

    FINAL = "final"
    ORIGINAL = "original"


class Answer(StrEnum):
    """In what form an inference is answered."""

    ALL = "all"
    IMAGE = "image"
    JSON = "json"


class Listing(StrEnum):
    """How much is said of the data store."""

    ALL = "all"
    STATS = "stats"


class Chosen(StrEnum):
    """Images for batch inference."""

    ALL = "all"
    LABELED = "labeled"
    UNLABELED = "unlabeled"


class Message(BaseModel):
    """What every client may send; what we do not know is left alone."""

    model_config = ConfigDict(extra="allow", strict=True)
    client_id: ClientId = ""


class ImageMessage(Message):
    """Beside an image: whether everybody shall see it."""

    shared: bool = False


class InferMessage(Message):
    """Beside an inference; the options of the model are checked by the model."""

    job: JobId | None = None
    result_extension: Literal[(*RESULT_EXTENSIONS, "")] | None = None  # type: ignore[valid-type]
    result_dtype: Literal[(*RESULT_DTYPES, "")] | None = None  # type: ignore[valid-type]
    save_label: bool = False
    label_tag: Literal["original"] = "original"

    @property
    def options(self) -> dict[str, Any]:
        """What goes to the model."""
        ours = {"job", "client_id", "save_label", "label_tag"}
        return {name: value for name, value in self.model_dump().items() if name not in ours}


class BatchMessage(InferMessage):
    """Beside batch inference."""

    max_batch_size: Annotated[int, Field(ge=0)] = 0
    resume: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """What goes to the model."""
        ours = {"max_batch_size", "resume"}
        return {name: value for name, value in super().options.items() if name not in ours}


class TrainMessage(Message):
    """Beside the wish to train; the options are checked by the trainer."""

    @property
    def options(self) -> dict[str, Any]:
        """What goes to the trainer."""
        return {name: value for name, value in self.model_dump().items() if name != "client_id"}


class NamedValue(BaseModel):
    """The name of a value of a label map."""

    model_config = ConfigDict(strict=True)
    name: ShortText
    idx: Annotated[int, Field(ge=0, le=255)]


class LabelMessage(Message):
    """Beside a label that a person corrected."""

    label_info: Annotated[list[NamedValue], Field(max_length=256)] | None = None
    model: ShortText | None = ""


class SampleMessage(Message):
    """Beside the wish for another sample."""


Kind = TypeVar("Kind", bound=Message)


def read_message(text: str | bytes, kind: type[Kind]) -> Kind:
    """Return a client's JSON as a message; nothing at all is one with every default.

    Raises
    ------
    RequestError
        It is no JSON object, or not of this kind.
    """
    try:
        return kind.model_validate(_read_object(text))
    except ValidationError as error:
        raise RequestError(describe_errors(error.errors())) from error


def read_facts(text: str | bytes) -> dict[str, Any]:
    """Return a client's JSON object of anything.

    Raises
    ------
    RequestError
        It is none.
    """
    return _read_object(text)


def _read_object(text: str | bytes) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        value = json.loads(text, parse_float=_read_finite, parse_constant=_read_finite)
        json.dumps(value, ensure_ascii=False).encode()  # half a character cannot be sent back
    except (ValueError, RecursionError) as error:
        raise RequestError("params must be a JSON object of finite numbers and texts.") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(
            f"params must be a JSON object as in {{}}, got {json.dumps(value)[:40]}."
        )
    return value


def _read_finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def describe_errors(errors: Any) -> str:
    """Say in sentences what of a request must be otherwise, and what is allowed."""
    return " ".join(_describe(error) for error in list(errors)[:4])


def _describe(error: dict[str, Any]) -> str:
    places = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]
    name = ".".join(places)[:80] or "The request"
    return f"{name}: {error['msg']}."
