"""The layering of design.md, section 2, and what may appear nowhere; read from the syntax trees of the sources."""

import ast
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mbpo_jax

SRC = Path(mbpo_jax.__file__).parent
FILES = {path.relative_to(SRC).as_posix(): path for path in sorted(SRC.rglob("*.py"))}

LEVELS = {
    0: "factorizations number_text types options backends",
    1: "batching ensemble health learner replay permutation networks distributions normalizer schedules terminations "
    "theory rewards",
    2: "models rollouts planners agents",
    3: "algorithms",
    4: "driver environments reports data_sets",
    5: "launch studies environment_check surroundings",
    6: "main evaluate collect plot sweep reproduce study check_env doctor __init__",
    7: "__main__",
}
LEVEL_OF = {unit: level for level, units in LEVELS.items() for unit in units.split()}
SAME_LEVEL = {
    "driver": ("environments", "reports", "data_sets"),
    "data_sets": ("driver.storage", "driver.interaction.spaces", "driver.memory_limits", "driver.config"),
    "reports": ("driver.storage.metrics", "driver.storage.files"),
}
"""What a unit may import of its own level besides its own folder: a whole folder, or one file."""
INSIDE_DRIVER = {
    "driver/storage": ("driver.storage", "driver.config"),
    "driver/interaction": ("driver.interaction", "driver.storage", "driver.config", "driver.seeds"),
}
"""What a folder of the driver may import of the driver."""

DRIVER_LEVEL = LEVEL_OF["driver"]
PURE_PACKAGES = set(
    "jax flax optax chex mbpo_jax __future__ abc collections dataclasses enum functools itertools math operator types "
    "typing".split()
)
"""Everything that code below the driver may import. Not numpy, gymnasium, mujoco, orbax, absl, os, sys, time, pathlib,
random, logging, threading, importlib: no state, no clock, no file, no environment."""
IMPURE_BUILTINS = {"open", "print", "input", "__import__", "hash", "id"}
BANNED_PACKAGES = set("pickle cloudpickle dill marshal shelve joblib torch tensorflow yaml runpy code codeop".split())
BANNED_BUILTINS = {"eval", "exec", "compile", "__import__"}
LOADERS = {"load", "loads", "unsafe_load", "full_load"}
LOADER_PACKAGES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "torch", "yaml"}
PICKLING = ("multiprocessing", "concurrent.futures.ProcessPoolExecutor", "concurrent.futures.process", "_pickle")
"""What sends objects between processes pickles them; processes here exchange bytes."""
MAY_IMPORT_BY_NAME = {
    "__init__.py": "the package's own modules",
    "driver/interaction/task.py": "what --termination_fn names",
    "launch/command.py": "the package's own commands",
}
MAY_LOOK_AT_GLOBAL_GENERATORS = {"environment_check/repeats.py": "whether an environment draws from them"}
MAY_TOUCH_GLOBAL_RANDOM = {"driver/interaction/global_random.py": "seeds them for environments that draw from them"}
SEEDED_RANDOM = {"Generator", "PCG64", "SeedSequence"}
"""What may be used of numpy.random; default_rng may where it is given a seed."""
LOOKS = {"random", "np.random.get_state"}
"""What looks at a global generator without drawing from it; that `random` is used for nothing else is for reviews."""


parsed = functools.cache(ast.parse)


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
    for node in walk(parsed(source)):
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
    used = {node.id for node in walk(parsed(source)) if isinstance(node, ast.Name)}
    return sorted(packages - PURE_PACKAGES) + sorted(used & IMPURE_BUILTINS)


def mentions(source: str, file: str, *words: str) -> list[str]:
    """Which of the words appear as an attribute, or as a part of an imported name."""
    found = {node.attr for node in walk(parsed(source)) if isinstance(node, ast.Attribute)}
    found |= {part for name in imports(source, file) for part in name.split(".")}
    return sorted(found & set(words))


def banned(source: str, file: str) -> list[str]:
    """What may appear nowhere: what runs what it loads, objects between processes, memory and numbers from nowhere."""
    names = imports(source, file)
    found = {name for name in names if name.split(".")[0] in BANNED_PACKAGES}
    found |= {name for name in names if name.startswith(("jax.numpy.empty", "builtins."))}
    found |= {name for name in names if any(f"{name}.".startswith(f"{banned}.") for banned in PICKLING)}
    may_touch = file in MAY_TOUCH_GLOBAL_RANDOM
    found |= {name for name in names if (name.split(".")[0] == "random" and not may_touch) or name == "numpy.random"}
    found |= {
        name
        for name in names
        if name.startswith("numpy.random.") and name.split(".")[2] not in SEEDED_RANDOM | {"default_rng"}
    }
    if file not in MAY_IMPORT_BY_NAME:
        found |= {name for name in names if name == "importlib.import_module"}
    for node in ast.walk(parsed(source)):
        found |= set(_banned_here(node, file))
    return sorted(found - (LOOKS if file in MAY_LOOK_AT_GLOBAL_GENERATORS else set()))


def _banned_here(node: ast.AST, file: str) -> Iterator[str]:
    if isinstance(node, ast.Name) and node.id in BANNED_BUILTINS:
        yield node.id
    elif isinstance(node, ast.Attribute):
        owner, whole = ast.unparse(node.value), ast.unparse(node)
        if owner == "builtins" or (owner in ("jnp", "jax.numpy") and node.attr in ("empty", "empty_like")):
            yield whole
        elif node.attr in LOADERS and owner.split(".")[0] in LOADER_PACKAGES:
            yield whole
        elif owner in ("np.random", "numpy.random") and node.attr not in SEEDED_RANDOM | {"default_rng"}:
            if file not in MAY_TOUCH_GLOBAL_RANDOM:
                yield whole
        elif whole in ("concurrent.futures.ProcessPoolExecutor", "futures.ProcessPoolExecutor"):
            yield whole
        elif whole == "importlib.import_module" and file not in MAY_IMPORT_BY_NAME:
            yield whole
    elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
        if not (isinstance(node.value, ast.Constant) and node.value.value is False):
            yield "allow_pickle"
    elif isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called.split(".")[-1] == "default_rng" and not node.args and not node.keywords:
            yield f"{called}()"
        if called in ("np.save", "numpy.save") and not any(keyword.arg == "allow_pickle" for keyword in node.keywords):
            yield f"{called} without allow_pickle=False"


def set_orders(source: str) -> list[str]:
    """Sets that are gone through in their own order, which differs between processes for strings (PYTHONHASHSEED)."""
    found = []
    for node in ast.walk(parsed(source)):
        gone_through = []
        if isinstance(node, ast.For | ast.comprehension):
            gone_through = [node.iter]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("list", "tuple", "enumerate", "zip", "map"):
            gone_through = node.args
        found += [ast.unparse(item) for item in gone_through if _is_set(item)]
    return found


def _is_set(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return _is_set(node.left) or _is_set(node.right)
    called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    return isinstance(node, ast.Set | ast.SetComp) or called in ("set", "frozenset")


def level(file: str) -> int:
    return LEVEL_OF[file.split("/")[0].removesuffix(".py")]


def below(limit: int, *exceptions: str) -> list[str]:
    return [file for file in FILES if level(file) < limit and file not in exceptions]


def test_every_file_has_a_level():
    units = {file.split("/")[0].removesuffix(".py") for file in FILES}
    assert units <= set(LEVEL_OF), f"no level for {units - set(LEVEL_OF)}; give them one in the table"
    assert {"types", "replay", "models", "algorithms", "driver", "main"} <= units  # the sources were found


def offenders(files: Iterable[str], wrong: Callable[[str, str], Any]) -> dict[str, Any]:
    """What `wrong(source, file)` finds in each of the files in which it finds anything."""
    found = {file: wrong(FILES[file].read_text(), file) for file in files}
    assert len(found) > 10  # the sources were found
    return {file: what for file, what in found.items() if what}


def mention(*words: str) -> Callable[[str, str], list[str]]:
    return lambda source, file: mentions(source, file, *words)


# One test for a rule and not for each file: 1,300 tests take longer to collect, in each process, than to run.


def test_a_file_imports_only_lower_levels_or_its_own_folder():
    assert offenders(FILES, upward_imports) == {}


def test_a_folder_of_the_driver_imports_only_what_lies_below_it():
    def wrong(source: str, file: str) -> set[str]:
        allowed = tuple(f"mbpo_jax.{name}." for name in INSIDE_DRIVER[file.rpartition("/")[0]])
        of_the_driver = {name for name in imports(source, file) if name.startswith("mbpo_jax.driver")}
        return {name for name in of_the_driver if not f"{name}.".startswith(allowed)}

    assert offenders([file for file in FILES if file.startswith("driver/") and file.count("/") > 1], wrong) == {}


def test_code_below_the_driver_is_pure():
    assert offenders(below(DRIVER_LEVEL), impure) == {}


def test_only_networks_use_linen():
    assert offenders([file for file in FILES if file != "networks.py"], mention("linen", "nnx")) == {}


def test_only_factorizations_factorize():
    """Batched, they may hang on a CPU. Initial weights are drawn by a factorisation in `networks`."""
    names = (
        "cholesky",
        "qr",
        "svd",
        "eigh",
        "eig",
        "solve",
        "inv",
        "pinv",
        "lstsq",
        "det",
        "slogdet",
        "solve_triangular",
    )
    of_factorizations = {"models/gp_regression.py": ["cholesky"]}  # it calls that of `factorizations`
    files = below(DRIVER_LEVEL, "factorizations.py")
    assert offenders(files, mention(*names, "cho_factor", "cho_solve", "schur", "expm")) == of_factorizations


def test_only_the_ensemble_lifts():
    """And `batching`, which says what lifting does to loops and branches."""
    assert offenders(below(DRIVER_LEVEL, "ensemble.py", "batching.py"), mention("vmap", "pmap")) == {}


def test_nothing_goes_through_a_set_in_its_own_order():
    assert offenders(FILES, lambda source, file: set_orders(source)) == {}


def test_nothing_that_runs_what_it_loads_and_no_uninitialised_memory():
    assert offenders(FILES, banned) == {}


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
        ("driver/loop.py", "from mbpo_jax.launch import processes", ["mbpo_jax.launch.processes"]),
        ("reports/curves.py", "from mbpo_jax.launch import command", ["mbpo_jax.launch.command"]),
        ("launch/processes.py", "from mbpo_jax.driver import loop\nfrom mbpo_jax.launch import run_parts", []),
        ("launch/processes.py", "from mbpo_jax import sweep, studies", ["mbpo_jax.studies", "mbpo_jax.sweep"]),
        (
            "reports/curves.py",
            "from mbpo_jax.driver.storage import metrics\nimport mbpo_jax.driver.storage.metrics",
            [],
        ),
        ("reports/curves.py", "from mbpo_jax.driver.storage.metrics import read", []),
        (
            "reports/curves.py",
            "from mbpo_jax.driver.storage import metrics_of_mine",
            ["mbpo_jax.driver.storage.metrics_of_mine"],
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
        ("from time import monotonic\nimport random, os, secrets", ["os", "random", "secrets", "time"]),
        ("x = sorted(y, key=hash) + [id(y)]", ["hash", "id"]),
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
        *((f"import {name}", [name]) for name in "cloudpickle dill marshal shelve joblib torch yaml runpy".split()),
        ("from pickle import loads", ["pickle.loads"]),
        ("def f():\n  from joblib import load", ["joblib.load"]),
        ("torch.load(x)", ["torch.load"]),
        ("yaml.load(x)\nyaml.unsafe_load(x)\nyaml.safe_load(x)", ["yaml.load", "yaml.unsafe_load"]),
        ("json.load(x)\nnp.load(x, allow_pickle=False)", []),
        ("__import__(name)", ["__import__"]),
        ("run = exec", ["exec"]),
        ("from builtins import eval", ["builtins.eval"]),
        ("compile('1', 'file', 'eval')", ["compile"]),
        ("re.compile('a')\njitted.lower(x).compile()\nself.compile()", []),
        ("import importlib\nimportlib.import_module(x)", ["importlib.import_module"]),
        ("from importlib import import_module", ["importlib.import_module"]),
        ("import importlib.metadata", []),
        ("import multiprocessing", ["multiprocessing"]),
        ("from multiprocessing.connection import Client", ["multiprocessing.connection.Client"]),
        ("from multiprocessing import Pool, Process", ["multiprocessing.Pool", "multiprocessing.Process"]),
        (
            "from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor",
            ["concurrent.futures.ProcessPoolExecutor"],
        ),
        (
            "import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor(1)",
            ["concurrent.futures.ProcessPoolExecutor"],
        ),
        ("import random", ["random"]),
        ("from random import shuffle", ["random.shuffle"]),
        ("np.random.seed(1)\nx = numpy.random.normal(size=3)", ["np.random.seed", "numpy.random.normal"]),
        ("from numpy.random import rand", ["numpy.random.rand"]),
        ("np.random.default_rng()", ["np.random.default_rng()"]),
        ("np.random.default_rng(3)\nnp.random.SeedSequence([1, 2])\njax.random.normal(key)", []),
        ("np.save(x, y)", ["np.save without allow_pickle=False"]),
        ("np.save(x, y, allow_pickle=False)", []),
    ],
)
def test_the_reader_sees_what_is_banned(source, wrong):
    assert banned(source, "driver/loop.py") == wrong


def test_modules_are_imported_by_name_only_where_it_is_meant():
    for source in ("import importlib\nimportlib.import_module(x)", "from importlib import import_module"):
        assert banned(source, "driver/storage/checkpoint.py") == ["importlib.import_module"]
        assert all(banned(source, file) == [] for file in MAY_IMPORT_BY_NAME)


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("for x in {1, 2}: pass", ["{1, 2}"]),
        ("[x for x in set(y)]", ["set(y)"]),
        ("list(set(y) - z)\ntuple(frozenset(y))", ["set(y) - z", "frozenset(y)"]),
        ("enumerate({x for x in y})", ["{x for x in y}"]),
        ("for x in sorted(set(y)): pass", []),
        ("x in {1, 2}\nlen(set(y))\nfor x in y: pass", []),
    ],
)
def test_the_reader_sees_sets_in_their_own_order(source, wrong):
    assert set_orders(source) == wrong


def test_the_reader_sees_lifting_and_linen():
    assert mentions("from jax import vmap", "models/gp.py", "vmap") == ["vmap"]
    assert mentions("f = partial(jax.vmap, in_axes=0)", "models/gp.py", "vmap") == ["vmap"]
    assert mentions("from flax import linen as nn", "models/gp.py", "linen") == ["linen"]
    assert mentions("import flax.linen.module", "models/gp.py", "linen") == ["linen"]
    assert mentions('"""Not vmap."""\nx = 1', "models/gp.py", "vmap") == []
