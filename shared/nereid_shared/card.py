# SPDX-License-Identifier: Apache-2.0
"""A model's card, ``model.json`` beside the file: everything about a model that its tensors cannot tell.

Width, height, channels, data types and quantisation are read from the tensors, never from here. Nothing of a card is
guessed: an unknown field is refused, so that a misspelt one does not silently mean its default.
"""

from collections import Counter
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal, Self, dataclass_transform

import msgspec
from msgspec import Meta, Struct, field

from nereid_shared.complaints import WrongField, complaint
from nereid_shared.errors import ModelInvalid

FILE_NAME: Final = "model.json"
SUFFIXES: Final = (".onnx", ".tflite")
"""Of the model files that are found in a folder without being named."""
SCHEMA: Final = "nereid.io/model-card/v1"
MAX_BYTES: Final = 4 * 1024 * 1024


def _check_inside(name: str, path: str) -> None:
    parts = PurePosixPath(path)
    if not path or parts.is_absolute() or ".." in parts.parts:
        raise WrongField(name, "should be a path below the card's folder")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class _Part(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    pass


class Normalization(_Part, kw_only=True):
    """What happens to each pixel: (x - mean) / std, per channel in the order that the model is fed.

    Attributes:
        unit: ``unit``: x is pixel / 255; ``byte``: x is the pixel, 0..255.
        mean, std: one figure for all channels, or one per channel; in `unit`.
    """

    unit: Literal["unit", "byte"]
    mean: Annotated[list[float], Meta(min_length=1, max_length=3)]
    std: Annotated[list[Annotated[float, Meta(gt=0)]], Meta(min_length=1, max_length=3)]


class Input(_Part, kw_only=True):
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
    letterbox_value: Annotated[int, Meta(ge=0, le=255)] = 114
    exif: bool = True
    normalization: Normalization

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self.normalization, name)) not in {1, self.channels}:
                raise ValueError(
                    f"normalization.{name} should have 1 or {self.channels} figures for {self.color_order}"
                )

    @property
    def channels(self) -> int:
        """The channels of the tensor."""
        return 1 if self.color_order == "GRAY" else 3


class Output(_Part, kw_only=True):
    """What the model answers.

    Attributes:
        kind: ``logits`` still need a softmax, ``probabilities`` never get a second one.
        labels: the classes' names, in the tensor's order, all different.
        min_score: decimal string; an answer whose probability is below it has no label.
    """

    kind: Literal["logits", "probabilities"]
    labels: Annotated[list[Annotated[str, Meta(min_length=1, max_length=128)]], Meta(min_length=1)]
    min_score: str = "0"

    def __post_init__(self) -> None:
        twice = sorted(label for label, number in Counter(self.labels).items() if number > 1)
        if twice:
            raise ValueError(f"labels should differ; {twice[0]!r} stands more than once")
        try:
            least = Decimal(self.min_score)
        except InvalidOperation:
            least = Decimal("NaN")
        if not (least.is_finite() and 0 <= least <= 1):
            raise WrongField("minScore", 'should be a decimal from 0 to 1 as a string, such as "0.25"')


class File(_Part, kw_only=True):
    """The model file that the card was written for."""

    name: str
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    bytes: Annotated[int, Meta(gt=0)]

    def __post_init__(self) -> None:
        _check_inside("name", self.name)


class Golden(_Part, kw_only=True):
    """One picture and the model's output for it: what only a working model on working code reproduces.

    Attributes:
        input: a JPEG or PNG file, by its path below the card's folder.
        output: the output tensor in real numbers, before any softmax.
        tolerance: the largest absolute difference of any figure.
    """

    input: str
    output: Annotated[list[float], Meta(min_length=1)]
    tolerance: Annotated[float, Meta(ge=0)] = 1e-3

    def __post_init__(self) -> None:
        _check_inside("input", self.input)


class Metric(_Part, kw_only=True):
    """One measured figure, for people."""

    key: str
    value: str


class Card(_Part, kw_only=True):
    """The whole card.

    Attributes:
        file: identifies the model file; a file of another digest is refused.
        golden: run at each start.
        data: free: what the model was trained and measured on.
    """

    schema_: Literal["nereid.io/model-card/v1"] = field(name="schema")
    name: Annotated[str, Meta(min_length=1)]
    version: str
    task: Literal["classification"]
    description: str = ""
    input: Input
    output: Output
    file: File | None = None
    golden: list[Golden] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

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
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError as error:
            raise ModelInvalid(f"{file}: {complaint(error, cls)}", reason="CardInvalid") from error
        except (RecursionError, UnicodeDecodeError) as error:
            raise ModelInvalid(f"{file}: not JSON: {error}", reason="CardInvalid") from error


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
    found = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
    if len(found) != 1:
        many = "several model files; name one in the card's file.name" if found else f"no {' or '.join(SUFFIXES)} file"
        raise ModelInvalid(f"{folder}: {many}", reason="ModelMissing")
    return found[0]
