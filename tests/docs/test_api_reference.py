"""The API reference covers what it names, says something of everything, and is built without a warning."""

import importlib
import inspect
import re
import runpy

import pytest
from pages import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `((?:moonseg_jax|data_pipelines)[\w.]*)` \| (.*) \|$", PAGE, re.M)
MODULES = [module for module, _ in ROWS]


def public(module) -> dict[str, object]:
    """Classes and functions that the module offers, imported ones only where it says so."""
    listed = getattr(module, "__all__", None)
    found = inspect.getmembers(module, lambda value: inspect.isclass(value) or inspect.isfunction(value))
    return {
        name: value
        for name, value in found
        if (name in listed if listed is not None else value.__module__ == module.__name__ and name[0] != "_")
    }


def own_methods(value) -> dict[str, object]:
    """Public methods and properties that a class defines itself."""
    if not inspect.isclass(value):
        return {}
    kinds = (property, classmethod, staticmethod)
    return {
        name: member
        for name, member in vars(value).items()
        if name[0] != "_" and (inspect.isfunction(member) or isinstance(member, kinds) or hasattr(member, "attrname"))
    }


@pytest.mark.parametrize("name", MODULES)
def test_every_public_object_says_what_it_is(name):
    module = importlib.import_module(name)
    assert module.__doc__
    objects = public(module)
    assert objects or name.endswith("terms"), f"{name} offers nothing and need not be in the reference"
    silent = [one for one, value in objects.items() if not value.__doc__ or _is_generated(one, value)]
    silent += [
        f"{one}.{method}"
        for one, value in objects.items()
        for method, member in own_methods(value).items()
        if not member.__doc__ and not _is_flax(member)
    ]
    assert silent == []


@pytest.mark.parametrize(("name", "promised"), ROWS, ids=MODULES)
def test_what_the_map_points_at_is_there(name, promised):
    module = importlib.import_module(name)
    owner = None
    for word in re.findall(r"`(\w+)`", promised):
        value = getattr(module, word, None)
        if value is None:
            assert owner is not None and hasattr(owner, word), f"{name} has no {word}"
        elif inspect.isclass(value):
            owner = value


def test_pages_are_built_without_a_warning_and_hold_every_object(tmp_path):
    pytest.importorskip("pdoc", reason="the reference is built by pdoc, which is not installed")
    runpy.run_path(str(ROOT / "docs" / "reference.py"))["build"](tmp_path)
    missing = []
    for name in MODULES:
        text = (tmp_path / f"{name.replace('.', '/')}.html").read_text(encoding="utf-8")
        missing += [f"{name}.{one}" for one in public(importlib.import_module(name)) if f'id="{one}"' not in text]
    assert missing == []


def _is_generated(name: str, value: object) -> bool:
    """Whether the docstring is the signature that `dataclass` makes up."""
    return (value.__doc__ or "").startswith(f"{name}(")


def _is_flax(member: object) -> bool:
    """Whether a dataclass library made the method."""
    return getattr(getattr(member, "__func__", member), "__name__", "") == "replace"
