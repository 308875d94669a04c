"""``topic=k8s limit=5`` or a JSON object as the arguments of a task, converted by its parameters' annotations."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from agentq.cli.problem import Problem
from agentq.cli.target import did_you_mean
from agentq.errors import InvalidArgument

if TYPE_CHECKING:
    from agentq.message import Run
    from agentq.task import Task

_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_LISTS: Final = (list, tuple, set, frozenset, Sequence)


def parse_arguments(task: Task[..., Any], words: Sequence[str]) -> dict[str, Any]:
    """Return the typed keyword arguments that ``words`` mean for ``task``.

    Raises:
        Problem: a word is no ``name=value``, a name is unknown or missing, or a value does not fit its annotation.
    """
    parameters = _parameters(task)
    if len(words) == 1 and (words[0] == "-" or words[0].lstrip().startswith("{")):
        raw = sys.stdin.buffer.read() if words[0] == "-" else words[0].encode()
        values = _object(raw)
    else:
        values = _words(task, parameters, words)
    unknown = [name for name in values if name not in parameters]
    if unknown and _any_name(task) is None:
        guess = did_you_mean(unknown[0], parameters)
        raise Problem(f"{task.name} has no parameter {unknown[0]!r}", hint=f"{guess}\n{usage(task)}".strip(), code=2)
    if missing := [name for name in _required(task) if name not in values]:
        raise Problem(f"{task.name} needs {' and '.join(missing)}", hint=usage(task), code=2)
    try:
        return dict(task.arguments.decode(msgspec.json.encode(values)))
    except InvalidArgument as error:
        raise Problem(str(error), hint=usage(task), code=2) from error


def called_with(task: Task[..., Any], arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and named arguments of a call with ``arguments``: those of ``*many`` can only be given by position."""
    _, *rest = inspect.signature(task.fn).parameters.values()
    many = next((one.name for one in rest if one.kind is inspect.Parameter.VAR_POSITIONAL), None)
    if many is None or not arguments.get(many):
        return (), {name: value for name, value in arguments.items() if name != many}
    before = rest[: [one.name for one in rest].index(many)]
    first = tuple(arguments.get(one.name, one.default) for one in before)
    named = {many, *(one.name for one in before)}
    return (*first, *arguments[many]), {name: value for name, value in arguments.items() if name not in named}


def usage(task: Task[..., Any]) -> str:
    """Return how the task is called: ``report topic=<str> [limit=<int>] [mode=<fast|slow>]``."""
    required = _required(task)
    words = [f"{name}=<{_named(hint)}>" for name, hint in _parameters(task).items()]
    words += [f"NAME=<{_named(more)}>"] if (more := _any_name(task)) is not None else []
    return " ".join([task.name, *(word if word.partition("=")[0] in required else f"[{word}]" for word in words)])


def _named(hint: Any) -> str:
    """Name a type as people type its values; of few values, the values."""
    hint = _bare(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "|".join(str(one.value) for one in hint)
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    if get_origin(hint) in {Union, types.UnionType}:
        return "|".join(map(_named, get_args(hint))).replace("NoneType", "null")
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def _required(task: Task[..., Any]) -> list[str]:
    _, *rest = inspect.signature(task.fn).parameters.values()
    many = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    return [one.name for one in rest if one.default is inspect.Parameter.empty and one.kind not in many]


def _parameters(task: Task[..., Any]) -> Mapping[str, Any]:
    """Names and types of what is given by name; ``*many`` is given as a list of that name."""
    hints = get_type_hints(task.fn, include_extras=True)
    _, *rest = inspect.signature(task.fn).parameters.values()  # the first is the context
    found: dict[str, Any] = {}
    for one in rest:
        hint = hints.get(one.name, Any)
        if one.kind is inspect.Parameter.VAR_POSITIONAL:
            found[one.name] = list.__class_getitem__(hint)
        elif one.kind is not inspect.Parameter.VAR_KEYWORD:
            found[one.name] = hint
    return found


def _any_name(task: Task[..., Any]) -> Any:
    """Type of the arguments of any other name, ``**more``; None where there are none."""
    *_, last = inspect.signature(task.fn).parameters.values()
    if last.kind is not inspect.Parameter.VAR_KEYWORD:
        return None
    return get_type_hints(task.fn, include_extras=True).get(last.name, Any)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Problem(f"the arguments are no JSON object: {error}", hint='such as \'{"topic": "k8s"}\'', code=2) from error


def _words(task: Task[..., Any], parameters: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    more = _any_name(task) or Any
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip()
        if not equals:
            raise Problem(f"{word!r} is no argument: write name=value", hint=usage(task), code=2)
        hint = _bare(parameters.get(name, more))
        if name in values:
            if not isinstance(values[name], list) or not _is_list(hint):
                raise Problem(f"{name} is given twice", hint=usage(task), code=2)
            values[name].append(_item(hint, text))
        else:
            values[name] = convert(hint, text)
    return values


def convert(hint: Any, text: str) -> Any:
    """Return the JSON value that ``text`` means for an annotation; what does not fit is left for the codec to refuse."""
    hint = _bare(hint)
    options = _options(hint)
    if type(None) in options and text in {"null", "none", "None"}:
        return None
    if str in options:
        return text
    if bool in options and (known := _boolean(text)) is not None:
        return known
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = text
    if _is_list(hint) and not isinstance(value, list):
        return [_item(hint, text)]
    return value


def _item(hint: Any, text: str) -> Any:
    """Convert one item of a list that is given as ``name=a name=b``."""
    inner = next((get_args(option) for option in _options(hint) if get_origin(option) in _LISTS), ())
    return convert(inner[0] if inner else Any, text)


def _is_list(hint: Any) -> bool:
    return any((get_origin(option) or option) in _LISTS for option in _options(hint))


def _boolean(text: str) -> bool | None:
    return True if text.lower() in _TRUE else False if text.lower() in _FALSE else None


def _bare(hint: Any) -> Any:
    return _bare(get_args(hint)[0]) if get_origin(hint) is Annotated else hint


def _options(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in {Union, types.UnionType}:
        return tuple(_bare(option) for option in get_args(hint))
    return (hint,)


def arguments_of(run: Run) -> dict[str, Any]:
    """Return a run's arguments as plain data."""
    return msgspec.json.decode(run.args, type=dict[str, Any])
