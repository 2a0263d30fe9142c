# SPDX-License-Identifier: Apache-2.0
"""A model's card, ``model.json`` beside the file: everything about a model that its tensors cannot tell.

Width, height, channels, data types and quantisation are read from the tensors, never from here. Nothing of a card is
guessed: an unknown field is refused, so that a misspelt one does not silently mean its default.
"""

from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from nereid_shared.errors import ModelInvalid

FILE_NAME: Final = "model.json"
SCHEMA: Final = "nereid.io/model-card/v1"
MAX_BYTES: Final = 4 * 1024 * 1024


def _score(text: str) -> str:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not (value.is_finite() and 0 <= value <= 1):
        raise ValueError('should be a decimal from 0 to 1 as a string, such as "0.25"')
    return text


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if not path or parts.is_absolute() or ".." in parts.parts:
        raise ValueError("should be a path below the card's folder")
    return path


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False, strict=True
    )


class Normalization(_Part):
    """What happens to each pixel: (x - mean) / std, per channel in the order that the model is fed.

    Attributes:
        unit: ``unit``: x is pixel / 255; ``byte``: x is the pixel, 0..255.
        mean, std: one figure for all channels, or one per channel; in `unit`.
    """

    unit: Literal["unit", "byte"]
    mean: list[float] = Field(min_length=1, max_length=3)
    std: list[Annotated[float, Field(gt=0)]] = Field(min_length=1, max_length=3)


class Input(_Part):
    """How a picture becomes the model's input.

    Attributes:
        color_order: the channels' order in the tensor.
        resize: ``stretch`` to the tensor's size, or ``letterbox``: keep the proportions, centre, fill with
            `letterbox_value`.
        letterbox_value: the fill as a pixel value, before normalisation.
        exif: turn the picture as its EXIF orientation says.
    """

    layout: Literal["NHWC", "NCHW"]
    color_order: Literal["RGB", "BGR", "GRAY"]
    resize: Literal["stretch", "letterbox"]
    interpolation: Literal["nearest", "linear", "area", "cubic"]
    letterbox_value: int = Field(default=114, ge=0, le=255)
    exif: bool = True
    normalization: Normalization

    @property
    def channels(self) -> int:
        """The channels of the tensor."""
        return 1 if self.color_order == "GRAY" else 3

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        for name in ("mean", "std"):
            if len(getattr(self.normalization, name)) not in {1, self.channels}:
                raise ValueError(
                    f"normalization.{name} should have 1 or {self.channels} figures for {self.color_order}"
                )
        return self


class Output(_Part):
    """What the model answers.

    Attributes:
        kind: ``logits`` still need a softmax, ``probabilities`` never get a second one.
        labels: the classes' names, in the tensor's order, all different.
        min_score: decimal string; an answer whose probability is below it has no label.
    """

    kind: Literal["logits", "probabilities"]
    labels: list[Annotated[str, Field(min_length=1, max_length=128)]] = Field(min_length=1)
    min_score: Annotated[str, AfterValidator(_score)] = "0"

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice:
            raise ValueError(f"labels should differ; {twice[0]!r} stands more than once")
        return self


class File(_Part):
    """The model file that the card was written for."""

    name: Annotated[str, AfterValidator(_inside)]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)


class Golden(_Part):
    """One picture and the model's output for it: what only a working model on working code reproduces.

    Attributes:
        input: a JPEG or PNG file, by its path below the card's folder.
        output: the output tensor in real numbers, before any softmax.
        tolerance: the largest absolute difference of any figure.
    """

    input: Annotated[str, AfterValidator(_inside)]
    output: list[float] = Field(min_length=1)
    tolerance: float = Field(default=1e-3, ge=0)


class Metric(_Part):
    """One measured figure, for people."""

    key: str
    value: str


class Card(_Part):
    """The whole card.

    Attributes:
        file: identifies the model file; a file of another digest is refused.
        golden: run at each start.
        data: free: what the model was trained and measured on.
    """

    schema_: Literal["nereid.io/model-card/v1"] = Field(alias="schema")
    name: str = Field(min_length=1)
    version: str
    task: Literal["classification"]
    description: str = ""
    input: Input
    output: Output
    file: File | None = None
    golden: list[Golden] = Field(default_factory=list)
    metrics: list[Metric] = Field(default_factory=list)
    data: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Return the card of a model.

        Args:
            path: the model file, its folder, or the card itself.

        Raises:
            ModelInvalid: ``CardMissing``, or ``CardInvalid`` naming the file, the field and what it should be.
        """
        file = card_path(Path(path))
        try:
            with file.open("rb") as stream:
                text = stream.read(MAX_BYTES + 1)
        except FileNotFoundError as error:
            raise ModelInvalid(
                f"{file}: there is no card. Write one beside the model; `nereid new` asks for what it needs.",
                reason="CardMissing",
            ) from error
        except OSError as error:
            raise ModelInvalid(f"{file}: cannot be read: {error.strerror}", reason="CardMissing") from error
        if len(text) > MAX_BYTES:
            raise ModelInvalid(f"{file}: larger than {MAX_BYTES} bytes", reason="CardInvalid")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ModelInvalid(f"{file}: {_first(error)}", reason="CardInvalid") from error


def card_path(path: Path) -> Path:
    """Return where the card of a model file, of a model's folder, or of itself stands."""
    if path.name == FILE_NAME:
        return path
    return (path if path.is_dir() else path.parent) / FILE_NAME


def model_path(path: Path, card: Card | None = None) -> Path:
    """Return the model file that a path means: itself, or the folder's one that the card names, or its only one.

    Raises:
        ModelInvalid: ``ModelMissing``: there is no such file, or several and no card says which.
    """
    folder = path.parent if path.name == FILE_NAME else path
    if not folder.is_dir():
        if not path.is_file():
            raise ModelInvalid(f"{path}: there is no such model file", reason="ModelMissing")
        return path
    if card is not None and card.file is not None:
        named = folder / card.file.name
        if not named.is_file():
            raise ModelInvalid(f"{named}: there is no such file; the card names it in file.name", reason="ModelMissing")
        return named
    found = sorted(folder.glob("*.tflite"))
    if len(found) != 1:
        many = "several .tflite files; name one in the card's file.name" if found else "no .tflite file"
        raise ModelInvalid(f"{folder}: {many}", reason="ModelMissing")
    return found[0]


def _first(error: ValidationError) -> str:
    """Return the first complaint with its field's path in words that name the mend."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    messages = {
        "extra_forbidden": "unknown field; remove it, or see whether it is misspelt",
        "missing": "missing; add it",
        "json_invalid": f"not JSON: {first['msg']}",
    }
    message = messages.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{where}: {message}" if where else message
