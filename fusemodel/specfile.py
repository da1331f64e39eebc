"""From loaded YAML to pydantic specs, with pydantic's complaints turned into messages that have a place."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fusemodel.errors import InputError, Where, nearest, unknown
from fusemodel.yamlfile import Document

Place = Callable[[tuple[str | int, ...], bool], Where]


class Spec(BaseModel):
    """Base of all file formats: unknown fields are errors, and nothing is converted (``true`` is not 1)."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, strict=True)


S = TypeVar("S", bound=Spec)


def document_place(doc: Document, *prefix: str | int) -> Place:
    """Looks places up in a document, below ``prefix``."""

    def place(path: tuple[str | int, ...], key: bool) -> Where:
        return doc.where_key(*prefix, *path) if key else doc.where(*prefix, *path)

    return place


def validate(model: type[S], data: Any, place: Place) -> S:
    """``data`` as a ``model``; InputError for the first thing wrong with it."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _input_error(model, data, error, place) from None


def _input_error(model: type[Spec], data: Any, error: ValidationError, place: Place) -> InputError:
    first: Any = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    path = _real_path(data, first["loc"])
    name = _label(path) or (str(first["loc"][-1]) if first["loc"] else "")
    if first["type"] == "extra_forbidden":
        valid = _fields_at(model, first["loc"][:-1])
        return unknown("field", name, valid, place(path, True)) if valid else InputError(
            f"unknown field {name!r}", place(path, True)
        )  # fmt: skip
    if first["type"] == "missing":
        return InputError(f"field {name!r} is missing", place(path[:-1], False), expected=f"`{name}: ...`")
    if first["type"] == "value_error":
        return InputError(
            f"{name}: {first['ctx']['error']}" if name else str(first["ctx"]["error"]), place(path, False)
        )
    same = [e for e in error.errors() if _real_path(data, e["loc"]) == path]  # one for each kind of value allowed
    expected = " or ".join(dict.fromkeys(map(_expected, same)))
    names = re.findall("'([^']*)'", expected) if first["type"] == "literal_error" else ()
    message = f"{name!r} is {_short(first['input'])}"
    return InputError(message, place(path, False), expected=expected, nearest=nearest(str(first["input"]), names))


def _expected(error: Any) -> str:
    context = {k: f"{v:g}" if isinstance(v, float) else v for k, v in (error.get("ctx") or {}).items()}
    return _EXPECTED[error["type"]].format(**context) if error["type"] in _EXPECTED else str(error["msg"])


#: What was expected, by pydantic's type of error.
_EXPECTED = {
    "dict_type": "`key: value` pairs", "model_type": "`key: value` pairs", "list_type": "a list", "string_type": "text",
    "int_type": "a whole number", "bool_type": "true or false", "float_type": "a number",
    "finite_number": "a finite number", "literal_error": "{expected}", "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}", "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} of them", "too_long": "at most {max_length} of them",
}  # fmt: skip


def _label(path: tuple[str | int, ...]) -> str:
    """``shape[1]`` for the second element of ``shape``."""
    start = max((i for i, step in enumerate(path) if isinstance(step, str)), default=0)
    return "".join(f"[{step}]" if isinstance(step, int) else step for step in path[start:])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _real_path(data: Any, loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The part of a pydantic location that exists in the data (it adds the names of union members)."""
    path: list[str | int] = []
    here = data
    for i, step in enumerate(loc):
        if (isinstance(here, dict) and step in here) or (isinstance(here, list) and isinstance(step, int)):
            path.append(step)
            here = here[step]  # type: ignore[index]
        elif i == len(loc) - 1 and isinstance(here, dict):
            path.append(step)
    return tuple(path)


def _fields_at(model: type[Spec], loc: tuple[str | int, ...]) -> list[str]:
    here: Any = model
    for step in loc:
        fields = getattr(here, "model_fields", None)
        if fields is None:
            break
        by_alias = {f.alias or n: f for n, f in fields.items()}
        found = by_alias.get(str(step)) or fields.get(str(step))
        here = _inner_model(found.annotation) if found else here
    fields = getattr(here, "model_fields", {})
    return [f.alias or n for n, f in fields.items()]


def _inner_model(annotation: Any) -> Any:
    """The spec inside ``dict[str, Spec]``, ``list[Spec]``, ``Spec | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for arg in getattr(annotation, "__args__", ()):
        inner = _inner_model(arg)
        if inner is not None:
            return inner
    return None


__all__ = ["Place", "Spec", "document_place", "validate"]
