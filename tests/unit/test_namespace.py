"""The public names are few, sorted, and exactly those that the package holds."""

import types

import agentq


def test_all_is_sorted_and_short():
    assert list(agentq.__all__) == sorted(agentq.__all__)
    assert len(agentq.__all__) <= 25


def test_all_is_the_namespace():
    public = {
        name
        for name, value in vars(agentq).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, types.ModuleType)
    }
    assert public == {name for name in agentq.__all__ if not name.startswith("_")}


def test_every_public_name_can_be_imported():
    for name in agentq.__all__:
        assert getattr(agentq, name) is not None


def test_every_public_name_is_documented():
    undocumented = [
        name for name in agentq.__all__ if callable(value := getattr(agentq, name)) and not (value.__doc__ or "").strip()
    ]
    assert not undocumented
