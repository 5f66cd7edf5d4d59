"""What holds for the project as a whole: its rooms, the arrows between them, no ambient randomness, no unpickling."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("cl", "strategies", "streams", "reports")
SOURCES = [path.relative_to(ROOT).as_posix() for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
MAY_TOUCH_GLOBAL_GENERATORS = "cl/seeds.py"
MAY_UNPICKLE = "streams/batches.py"  # CIFAR's format is a pickle; what it may load is listed there

GLOBAL_RANDOMNESS = re.compile(
    r"(np|numpy)\.random\.(?!(Generator|BitGenerator|SeedSequence|PCG64|Philox|default_rng)$)\w+"
    r"|torch\.(cuda\.|random\.)?(manual_seed|seed|set_rng_state|fork_rng)\w*"
    r"|random\.(?!Random$)\w+"
)
UNPICKLING = re.compile(
    r"(pickle|cPickle|cloudpickle|dill|shelve|marshal)(\..*)?|joblib\.load|(pd|pandas)\.read_pickle|allow_pickle=True"
)


def names(source: str) -> Iterator[str]:
    """Dotted names, imports and keyword arguments of a module; `pickle.load` for a `torch.load` that may unpickle."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute():
                yield ast.unparse(node)
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=str(module), names=aliases):
                yield from (f"{module}.{alias.name}" for alias in aliases)
            case ast.Call(func=function):
                keywords = [ast.unparse(keyword) for keyword in node.keywords]
                yield from keywords
                if ast.unparse(function) == "torch.load" and "weights_only=True" not in keywords:
                    yield "pickle.load"


def offences(source: str, pattern: re.Pattern[str]) -> list[str]:
    return [name for name in names(source) if pattern.fullmatch(name)]


def test_every_room_is_a_package_of_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == list(ROOMS)
    # Without this file, a folder of the same name elsewhere on the path would win over ours.
    assert [room for room in ROOMS if not (ROOT / room / "__init__.py").exists()] == []


def test_imports_run_one_way() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_several_tests_need_lies_in_no_test_module() -> None:
    tests = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py"))}
    borrowed = re.compile(r"tests\.(\w+\.)*test_\w+.*")
    assert {path.name: found for path, source in tests.items() if (found := offences(source, borrowed))} == {}


@pytest.mark.parametrize("path", [path for path in SOURCES if path != MAY_TOUCH_GLOBAL_GENERATORS])
def test_no_global_generator_is_touched(path: str) -> None:
    assert offences((ROOT / path).read_text(encoding="utf-8"), GLOBAL_RANDOMNESS) == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path != MAY_UNPICKLE])
def test_nothing_is_unpickled(path: str) -> None:
    assert offences((ROOT / path).read_text(encoding="utf-8"), UNPICKLING) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.manual_seed(0)",
        "torch.cuda.manual_seed_all(0)",
        "np.random.seed(0)",
        "noise = numpy.random.randn(3)",
        "from numpy.random import permutation",
        "random.shuffle(ids)",
        "from random import shuffle",
    ],
)
def test_the_check_finds_global_randomness(source: str) -> None:
    assert offences(source, GLOBAL_RANDOMNESS)


@pytest.mark.parametrize(
    "source",
    [
        "torch.Generator().manual_seed(0)",
        "generator = np.random.default_rng(0)",
        "def draw(generator: np.random.Generator) -> None: ...",
        "random.Random(0)",
        "'''np.random.seed(0) is not allowed'''",
    ],
)
def test_the_check_lets_generators_of_their_own_pass(source: str) -> None:
    assert offences(source, GLOBAL_RANDOMNESS) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "joblib.load(path)",
        "pd.read_pickle(path)",
    ],
)
def test_the_check_finds_unpickling(source: str) -> None:
    assert offences(source, UNPICKLING)


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=False)",
        "safetensors.torch.load(content)",
    ],
)
def test_the_check_lets_safe_loading_pass(source: str) -> None:
    assert offences(source, UNPICKLING) == []


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_slow_to_import_is_imported_where_it_is_used(source: str) -> None:
    for node in ast.parse((ROOT / source).read_text(encoding="utf-8")).body:
        modules = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])]
        assert not any(str(module).split(".")[0] == "peft" for module in modules), f"{source} loads peft at once"
