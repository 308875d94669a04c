"""Finding what ``module:name`` means: an AgentQ, or a task of one."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import click

from agentq.cli.problem import Problem
from agentq.errors import AgentQError

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.task import Task


_TARGET: Final = "agentq.target"
"""Key in click's ``meta``; commands within each other share it."""


def load_app(target: str) -> AgentQ:
    """Return the AgentQ that ``target`` names, directly or through one of its tasks."""
    found = _load(target)
    return found if _is_app(found) else app_of(found)


def load_task(target: str) -> Task[..., Any]:
    """Return the task that ``target`` names."""
    found = _load(target)
    if not _is_app(found):
        task: Task[..., Any] = found
        return task
    names = sorted(found.tasks)
    if len(names) == 1:
        only: Task[..., Any] = found.tasks[names[0]]
        return only
    module = target.partition(":")[0]
    raise Problem(
        f"{target} is an AgentQ, but a task is needed here",
        hint="its tasks: " + " ".join(f"{module}:{name}" for name in names)
        if names
        else "it has no tasks yet: declare one with @aq.task",
    )


def app_target(target: str) -> str:
    """Return what names the AgentQ of the task that ``target`` names; ``target`` itself where the module has no name for it."""
    place, _, _ = target.partition(":")
    found = load_task(target).app
    return next((f"{place}:{name}" for name, value in vars(_import(place)).items() if value is found), target)


def app_of(task: Any) -> AgentQ:
    """Return the AgentQ that a task belongs to."""
    app: AgentQ = task.app
    return app


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean …?`` when something is close enough, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def meant() -> str:
    """Return the MODULE:NAME that the command in hand was given; empty where it was given none."""
    context = click.get_current_context(silent=True)
    return "" if context is None else str(context.meta.get(_TARGET, ""))


def _load(target: str) -> Any:
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[_TARGET] = target
    place, _, name = target.partition(":")
    if not place:
        raise Problem(
            f"{target!r} names no module", hint="write module:name, such as hello:aq (hello.py with `aq = AgentQ(…)`)"
        )
    module = _import(place)
    if not name:
        return _only_app(module, place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise _no_such(place, module, name)
        found = getattr(found, part)
    if _is_app(found) or _is_task(found):
        return found
    raise Problem(f"{target} is {_article(found)}, neither an AgentQ nor a task", hint=_inventory(place, module))


def _import(place: str) -> ModuleType:
    if place.endswith(".py") or "/" in place:
        path = Path(place if place.endswith(".py") else f"{place}.py").resolve()
        if not path.is_file():
            raise Problem(f"there is no file {place}", hint=f"looked for {path}")
        folder, place = str(path.parent), path.stem
    else:
        folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            raise Problem(f"no module named {error.name!r}", hint=_where_to_look(error.name, folder)) from error
        missing = str(error.name).partition(".")[0]
        raise Problem(
            f"{place} imports {error.name!r}, which is not installed{_line(error)}", hint=f"pip install {missing}"
        ) from error
    except AgentQError as error:
        raise Problem(f"{place}: {error}{_line(error)}") from error
    except SyntaxError as error:
        raise Problem(f"{place} has a syntax error: {error.msg} ({error.filename}, line {error.lineno})") from error
    except Exception as error:
        text = f"{place} cannot be imported: {type(error).__name__}: {error}{_line(error)}"
        raise Problem(text, hint="`agentq --debug …` shows the traceback") from error


def _line(error: BaseException) -> str:
    """Say where in the user's files it happened: the last frame that is neither importlib's nor ours."""
    own = str(Path(__file__).resolve().parents[1])
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith((own, "<frozen"))
        and not frame.filename.endswith("importlib/__init__.py")
    ]  # fmt: skip
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _where_to_look(name: str, folder: str) -> str:
    modules = sorted(path.stem for path in Path(folder).glob("*.py"))
    guess = did_you_mean(name, modules)
    if guess:
        return guess
    shown = f"modules in {folder}: {' '.join(modules[:12])}" if modules else f"there are no Python files in {folder}"
    return f"{shown}\nrun agentq in the folder of the module, or write the path: agentq worker path/to/file.py:aq"


def _no_such(place: str, module: ModuleType, name: str) -> Problem:
    known = [attribute for attribute in vars(module) if not attribute.startswith("_")]
    guess = did_you_mean(name, known)
    return Problem(f"module {place!r} has no {name!r}", hint=f"{guess}\n{_inventory(place, module)}".strip())


def _inventory(place: str, module: ModuleType) -> str:
    apps = [f"{place}:{name}" for name, value in vars(module).items() if _is_app(value)]
    tasks = [f"{place}:{name}" for name, value in vars(module).items() if _is_task(value)]
    if not apps and not tasks:
        return f"{place} has neither an AgentQ nor a task"
    return "\n".join(filter(None, [f"AgentQ: {' '.join(apps)}" if apps else "", f"tasks: {' '.join(tasks)}" if tasks else ""]))


def _only_app(module: ModuleType, place: str) -> Any:
    apps = {id(value): value for value in vars(module).values() if _is_app(value)}
    if len(apps) == 1:
        return next(iter(apps.values()))
    raise Problem(f"{place!r} does not say which name is meant: write module:name", hint=_inventory(place, module))


def _is_app(value: Any) -> bool:
    from agentq.app import AgentQ  # noqa: PLC0415 - commands that need no user code do not load the runtime

    return isinstance(value, AgentQ)


def _is_task(value: Any) -> bool:
    from agentq.task import Task  # noqa: PLC0415 - as above

    return isinstance(value, Task)


def _article(value: Any) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"
