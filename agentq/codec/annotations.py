"""Reading the annotations of a user's function: postponed ones, local classes, and what is nested in them."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from agentq.errors import DeclarationError

_NOTHING = (None, inspect.Parameter.empty, Any, object)
_NEVER = (typing.NoReturn, typing.Never)


def resolve(fn: Callable[..., Any], name: str, annotation: Any) -> Any:
    """The type behind ``annotation`` of parameter ``name`` (or ``"return"``); Any when there is none.

    A postponed annotation is looked up in the module of ``fn``, in what ``fn`` closes over, and then, name by name, in the
    functions that are being executed: that is where a local class lives while its task is being declared.

    Raises:
        DeclarationError: naming the parameter and the name that is not defined.
    """
    if annotation is inspect.Parameter.empty or annotation is None:
        return Any if annotation is not None else type(None)
    inner = inspect.unwrap(getattr(fn, "__func__", fn))
    module = getattr(inner, "__globals__", {})
    local: dict[str, Any] = dict(_closure(inner))
    while True:
        try:
            return _evaluate(annotation, module, local)
        except NameError as error:
            if error.name is None or error.name in local or not _find_local(error.name, local):
                raise DeclarationError(_unresolved(fn, name, annotation, error)) from None
        except (TypeError, SyntaxError, AttributeError) as error:
            raise DeclarationError(_unresolved(fn, name, annotation, error)) from None


def walk(annotation: Any) -> Iterator[Any]:
    """Yield ``annotation`` and all that is nested in it: arguments, metadata, and types of the fields of its classes."""
    todo, seen = [annotation], set[int]()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        todo.extend(typing.get_args(each))
        if isinstance(each, list):
            todo.extend(each)
        if type(each).__name__ == "TypeAliasType":  # the ``type`` statement, from Python 3.12
            todo.append(each.__value__)
        if isinstance(each, type) and not isinstance(each, types.GenericAlias):
            todo.extend(_field_types(each))


def describe(annotation: Any) -> str:
    """The annotation as people write it."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return "None" if annotation is type(None) else annotation.__qualname__
    return str(annotation).replace("typing.", "").replace("NoneType", "None")


def normal(annotation: Any) -> Any:
    """Any for every way to say nothing, None's type for what never returns."""
    if any(annotation is nothing for nothing in _NOTHING):
        return Any
    return type(None) if any(annotation is never for never in _NEVER) else annotation


def _evaluate(annotation: Any, module: dict[str, Any], local: dict[str, Any]) -> Any:
    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    return typing.get_type_hints(holder, module, local, include_extras=True)["it"]


def _closure(fn: Any) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(getattr(getattr(fn, "__code__", None), "co_freevars", ()), fn.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue  # the variable is assigned after this function was made


def _find_local(name: str, local: dict[str, Any]) -> bool:
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_locals is not frame.f_globals and name in frame.f_locals:
            local[name] = frame.f_locals[name]
            return True
        frame = frame.f_back
    return False


def _unresolved(fn: Callable[..., Any], name: str, annotation: Any, error: Exception) -> str:
    where = f"the result of {fn.__qualname__}()" if name == "return" else f"parameter {name!r} of {fn.__qualname__}()"
    remedy = " (import it at run time, not only under TYPE_CHECKING)" if isinstance(error, NameError) else ""
    return f"{where}: cannot read the annotation {annotation!r}: {error}{remedy}"


def _field_types(cls: type) -> list[Any]:
    """Types and metadata of the fields of a dataclass, struct, TypedDict, named tuple or pydantic model."""
    models: dict[str, Any] | None = getattr(cls, "__pydantic_fields__", None)
    if models is not None:
        return [part for each in models.values() for part in (each.annotation, *each.metadata)]
    fielded = dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct) or typing.is_typeddict(cls)
    if not fielded and not (issubclass(cls, tuple) and hasattr(cls, "_fields")):
        return []
    try:
        return list(typing.get_type_hints(cls, include_extras=True).values())
    except Exception:  # noqa: BLE001 - whoever builds the codec reports it, with the class at hand
        return []
