"""The layering of design.md, section 2, and what may appear nowhere; read from the syntax trees of the sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mbpo_jax

SRC = Path(mbpo_jax.__file__).parent
FILES = {path.relative_to(SRC).as_posix(): path for path in sorted(SRC.rglob("*.py"))}

LEVELS = {
    0: "types options backends",
    1: "replay permutation networks distributions normalizer schedules terminations ensemble",
    2: "models rollouts planners agents",
    3: "algorithms",
    4: "driver environments reports",
    5: "main evaluate plot sweep __init__",
}
LEVEL_OF = {unit: level for level, units in LEVELS.items() for unit in units.split()}
SAME_LEVEL = {"driver": ("environments", "reports"), "reports": ("driver.metrics",)}
"""What a unit may import of its own level besides its own folder: a whole folder, or one file."""

DRIVER_LEVEL = LEVEL_OF["driver"]
PURE_PACKAGES = set(
    "jax flax optax chex mbpo_jax __future__ abc collections dataclasses enum functools itertools math operator types "
    "typing".split()
)
"""Everything that code below the driver may import. Not numpy, gymnasium, mujoco, orbax, absl, os, sys, time, pathlib,
random, logging, threading, importlib: no state, no clock, no file, no environment."""
IMPURE_BUILTINS = {"open", "print", "input", "__import__"}
BANNED_PACKAGES = set("pickle cloudpickle dill marshal shelve joblib torch tensorflow".split())


def is_type_checking(node: ast.AST) -> bool:
    """`TYPE_CHECKING` or `typing.TYPE_CHECKING`."""
    return getattr(node, "id", getattr(node, "attr", None)) == "TYPE_CHECKING"


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run: the body of `if TYPE_CHECKING` is left out, its `else` is not."""
    yield node
    children: Iterator[ast.AST] | list[ast.stmt] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and is_type_checking(node.test):
        children = node.orelse
    for child in children:
        yield from walk(child)


def imports(source: str, file: str) -> set[str]:
    """Dotted names that a file imports, wherever in it: `from a import b` is a.b, relative ones are made absolute."""
    package = ["mbpo_jax", *file.split("/")[:-1]]
    names = set()
    for node in walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def unit_of(name: str) -> str:
    """The unit of the table that a dotted name below mbpo_jax lies in; the public names lie in `__init__`."""
    first = name.split(".")[1] if "." in name else "__init__"
    return first if (SRC / first).is_dir() or f"{first}.py" in FILES else "__init__"


def may_import(unit: str, name: str) -> bool:
    """Whether a file of `unit` may import mbpo_jax's `name`."""
    target = unit_of(name)
    if LEVEL_OF[target] < LEVEL_OF[unit] or (target == unit and (SRC / unit).is_dir()):
        return True
    below = name.removeprefix("mbpo_jax.") + "."
    return any(below.startswith(f"{allowed}.") for allowed in SAME_LEVEL.get(unit, ()))


def upward_imports(source: str, file: str) -> list[str]:
    unit = file.split("/")[0].removesuffix(".py")
    own = (name for name in imports(source, file) if name.split(".")[0] == "mbpo_jax")
    return sorted(name for name in own if not may_import(unit, name))


def impure(source: str, file: str) -> list[str]:
    """Packages and builtins that code below the driver has no business with."""
    packages = {name.split(".")[0] for name in imports(source, file)}
    used = {node.id for node in walk(ast.parse(source)) if isinstance(node, ast.Name)}
    return sorted(packages - PURE_PACKAGES) + sorted(used & IMPURE_BUILTINS)


def mentions(source: str, file: str, *words: str) -> list[str]:
    """Which of the words appear as an attribute, or as a part of an imported name."""
    found = {node.attr for node in walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    found |= {part for name in imports(source, file) for part in name.split(".")}
    return sorted(found & set(words))


def banned(source: str, file: str) -> list[str]:
    """What may appear nowhere: packages that run what they load, eval, exec, pickled arrays, uninitialised memory."""
    found = {name for name in imports(source, file) if name.split(".")[0] in BANNED_PACKAGES}
    found |= {name for name in imports(source, file) if name.startswith("jax.numpy.empty")}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in ("eval", "exec"):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and node.attr in ("eval", "exec", "empty", "empty_like"):
            owner = ast.unparse(node.value)
            if owner in ("builtins", "jnp", "jax.numpy"):
                found.add(f"{owner}.{node.attr}")
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                found.add("allow_pickle")
    return sorted(found)


def level(file: str) -> int:
    return LEVEL_OF[file.split("/")[0].removesuffix(".py")]


def below(limit: int, *exceptions: str) -> list[str]:
    return [file for file in FILES if level(file) < limit and file not in exceptions]


def test_every_file_has_a_level():
    units = {file.split("/")[0].removesuffix(".py") for file in FILES}
    assert units <= set(LEVEL_OF), f"no level for {units - set(LEVEL_OF)}; give them one in the table"
    assert {"types", "replay", "models", "algorithms", "driver", "main"} <= units  # the sources were found


@pytest.mark.parametrize("file", FILES)
def test_imports_only_lower_levels_or_its_own_folder(file):
    assert upward_imports(FILES[file].read_text(), file) == []


@pytest.mark.parametrize("file", below(DRIVER_LEVEL))
def test_code_below_the_driver_is_pure(file):
    assert impure(FILES[file].read_text(), file) == []


@pytest.mark.parametrize("file", [file for file in FILES if file != "networks.py"])
def test_only_networks_use_linen(file):
    assert mentions(FILES[file].read_text(), file, "linen", "nnx") == []


@pytest.mark.parametrize("file", below(DRIVER_LEVEL, "ensemble.py"))
def test_only_the_ensemble_lifts(file):
    assert mentions(FILES[file].read_text(), file, "vmap", "pmap") == []


@pytest.mark.parametrize("file", FILES)
def test_nothing_that_runs_what_it_loads_and_no_uninitialised_memory(file):
    assert banned(FILES[file].read_text(), file) == []


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("replay.py", "from mbpo_jax import networks", ["mbpo_jax.networks"]),
        ("replay.py", "def f():\n  import mbpo_jax.driver.loop", ["mbpo_jax.driver.loop"]),
        ("types.py", "from .options import option", ["mbpo_jax.options.option"]),
        ("types.py", "from mbpo_jax import train", ["mbpo_jax.train"]),
        ("models/gaussian.py", "from ..agents.sac import build", ["mbpo_jax.agents.sac.build"]),
        ("models/gaussian.py", "from . import fitting\nfrom mbpo_jax.models import gp", []),
        ("models/gaussian.py", "if TYPE_CHECKING:\n  import mbpo_jax.main", []),
        (
            "models/gaussian.py",
            "if typing.TYPE_CHECKING:\n  pass\nelse:\n  import mbpo_jax.main",
            ["mbpo_jax.main"],
        ),
        ("agents/sac.py", "from mbpo_jax import replay, rollouts", ["mbpo_jax.rollouts"]),
        ("driver/loop.py", "from mbpo_jax import environments\nfrom mbpo_jax.reports import curves", []),
        ("driver/loop.py", "import mbpo_jax", ["mbpo_jax"]),
        ("reports/curves.py", "from mbpo_jax.driver import metrics\nimport mbpo_jax.driver.metrics", []),
        ("reports/curves.py", "from mbpo_jax.driver.metrics import read", []),
        (
            "reports/curves.py",
            "from mbpo_jax.driver import metrics_of_mine",
            ["mbpo_jax.driver.metrics_of_mine"],
        ),
        ("reports/curves.py", "import mbpo_jax.driver", ["mbpo_jax.driver"]),
        ("environments/__init__.py", "from mbpo_jax.driver import seeds", ["mbpo_jax.driver.seeds"]),
    ],
)
def test_the_reader_sees_upward_imports(file, source, wrong):
    assert upward_imports(source, file) == wrong


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("import jax.numpy as jnp\nfrom collections.abc import Callable", []),
        ("import numpy as np", ["numpy"]),
        ("def f():\n  from os.path import join", ["os"]),
        ("import math, time", ["time"]),
        ("def f(x):\n  print(x)\n  return open(x)", ["open", "print"]),
    ],
)
def test_the_reader_sees_impurity(source, wrong):
    assert impure(source, "models/gaussian.py") == wrong


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("import pickle", ["pickle"]),
        ("from torch.utils import data", ["torch.utils.data"]),
        ("import tensorboardX", []),
        ("eval('1')\nbuiltins.exec(x)", ["builtins.exec", "eval"]),
        ("model.eval()", []),
        ("np.load(x, allow_pickle=True)", ["allow_pickle"]),
        ("np.load(x, allow_pickle=flag)", ["allow_pickle"]),
        ("np.load(x, allow_pickle=False)", []),
        ("jnp.empty(3)", ["jnp.empty"]),
        ("np.empty(3)", []),
        ("from jax.numpy import empty_like", ["jax.numpy.empty_like"]),
    ],
)
def test_the_reader_sees_what_is_banned(source, wrong):
    assert banned(source, "driver/loop.py") == wrong


def test_the_reader_sees_lifting_and_linen():
    assert mentions("from jax import vmap", "models/gp.py", "vmap") == ["vmap"]
    assert mentions("f = partial(jax.vmap, in_axes=0)", "models/gp.py", "vmap") == ["vmap"]
    assert mentions("from flax import linen as nn", "models/gp.py", "linen") == ["linen"]
    assert mentions("import flax.linen.module", "models/gp.py", "linen") == ["linen"]
    assert mentions('"""Not vmap."""\nx = 1', "models/gp.py", "vmap") == []
