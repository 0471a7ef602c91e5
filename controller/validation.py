"""What pydantic finds wrong, as far as resources and the picker's configuration say it alike."""

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Words = Mapping[str, Callable[[Mapping[str, Any]], str]]  # Any: a context's values depend on the kind of error
"""What is accepted, by the kind of an error, of its context."""

ACCEPTED: Final[Words] = {
    "string_type": lambda _: "text",
    "int_type": lambda _: "a whole number, without quotes",
    "int_from_float": lambda _: "a whole number",
    "bool_type": lambda _: "true or false, without quotes",
    "tuple_type": lambda _: "a list",
    "dict_type": lambda _: "a mapping",
    "model_type": lambda _: "a mapping",
    "literal_error": lambda context: str(context["expected"]).replace("'", '"'),
    "enum": lambda context: str(context["expected"]).replace("'", '"'),
}


def details_of(error: ValidationError) -> list[ErrorDetails]:
    """What a failed validation found, in the order of the model's fields."""
    details = error.errors(include_url=False)
    places = [item["loc"] for item in details]
    return [
        item
        for item in details
        # pydantic does not count items that are themselves wrong
        if item["type"] != "too_short" or not any(_is_below(other, item["loc"]) for other in places)
    ]


def fields_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Names of the fields that a model accepts at a location."""
    current: type[BaseModel] | None = model
    for part in location:
        if current is None:
            return []
        if isinstance(part, int):
            continue
        fields = {item.alias or name: item.annotation for name, item in current.model_fields.items()}
        current = _model_in(fields.get(part))
    return [item.alias or name for name, item in current.model_fields.items()] if current else []


def _is_below(place: tuple[str | int, ...], other: tuple[str | int, ...]) -> bool:
    return len(place) > len(other) and place[: len(other)] == other


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model in an annotation such as `tuple[Model, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Annotated, Union, UnionType, tuple):
        return next((found for item in get_args(annotation) if (found := _model_in(item))), None)
    return None
