"""The design as tests: imports point downwards, nothing happens at import, and the README's map is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fuseloop"
MODULES = sorted(PACKAGE.rglob("*.py"))

# From top to bottom. A room imports itself and what lies below it, never its own level; errors are free for all.
LEVELS = (
    {"__main__"},
    {"cli"},
    {"training", "reports"},
    {"evaluation"},
    {"__init__"},  # what `import fuseloop` offers
    {"fusers", "tasks"},
    {"instructions"},
    {"engines", "datasets", "scoring", "weights"},
    {"networks", "pairs", "metrics"},
    {"errors"},
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def room_of(module: str) -> str:
    """The first part below the package: `fuseloop.pairs.colour` is in `pairs`; the package itself is `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import of ours, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = name_of(path).split(".")[: -node.level] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            # `from fuseloop import pairs` imports a room, `from fuseloop import load` imports from the package.
            is_room = base == "fuseloop"
            names = [f"{base}.{a.name}" if is_room and a.name in LEVEL_OF else base for a in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "fuseloop")


def statements_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: everything but the bodies of functions."""
    for field, value in ast.iter_fields(node):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and field == "body":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child
                yield from statements_at_import(child)


def dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downwards(path):
    room = room_of(name_of(path))
    assert room in LEVEL_OF, f"{room} has no place in LEVELS: add it there and to the README's map"
    for line, module in imports_of(path):
        imported = room_of(module)
        allowed = imported == room or LEVEL_OF[imported] > LEVEL_OF[room]
        assert allowed, f"{path.relative_to(ROOT)}:{line} imports {module}: {room} may not look up or sideways"


PURE_MATHS = ("fuseloop.networks", "fuseloop.metrics.functional")


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path).startswith(PURE_MATHS)], ids=name_of)
def test_networks_and_metric_functions_need_nothing_but_each_other(path):
    for line, module in imports_of(path):
        assert module.startswith((*PURE_MATHS, "fuseloop.errors")), f"{path.relative_to(ROOT)}:{line} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_reads_the_environment_at_import(path):
    for node in statements_at_import(ast.parse(path.read_text(encoding="utf-8"))):
        assert dotted(node) not in {"os.environ", "os.getenv", "environ", "getenv"}, (
            f"{path.relative_to(ROOT)}:{node.lineno} reads the environment at import"
        )


GLOBAL_SETTER = re.compile(r"torch\.(set_(?!grad_enabled)\w+|use_deterministic_algorithms|(random\.)?manual_seed)")


def nodes_outside_forked_random_state(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `with torch.random.fork_rng(...)`, which puts the generator back."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.With) and "fork_rng" in ast.unparse(child.items[0])):
            yield child
            yield from nodes_outside_forked_random_state(child)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_sets_global_torch_state(path):
    """Neither at import nor in a function: the process belongs to the caller."""
    for node in nodes_outside_forked_random_state(ast.parse(path.read_text(encoding="utf-8"))):
        called = dotted(node.func) if isinstance(node, ast.Call) else ""
        assigned = [dotted(target) for target in node.targets] if isinstance(node, ast.Assign) else []
        assert not GLOBAL_SETTER.fullmatch(called), f"{path.relative_to(ROOT)}:{node.lineno} calls {called}"
        assert not any(name.startswith("torch.") for name in assigned), f"{path.relative_to(ROOT)}:{node.lineno}"


def test_importing_every_module_prints_nothing_and_leaves_torch_as_it_was():
    program = f"""
import importlib, torch

def state():
    return (
        torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(), torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        torch.random.get_rng_state().tolist(),
    )

before = state()
for name in {[name_of(path).removesuffix(".__init__") for path in MODULES if path.stem != "__main__"]!r}:
    importlib.import_module(name)
assert state() == before, "an import changed the state of torch"
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert not finished.stdout


def rooms() -> set[str]:
    """Folders of the package that hold something, and its modules."""
    folders = {path for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    held = {path.name + "/" for path in folders if any(file.suffix != ".pyc" for file in path.rglob("*.*"))}
    return held | {path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}


def test_the_map_in_the_readme_names_exactly_what_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^( *)src/fuseloop/.*\n((?:\1 +.*\n)+)((?:\1\S.*\n)*)", readme, re.MULTILINE)
    assert found, "the README has no map: an indented tree that starts with src/fuseloop/"
    inside, beside = (re.findall(r"^ *([\w.]+(?:/[\w.]+)*/?) ", text, re.MULTILINE) for text in found.groups()[1:])
    assert sorted(inside) == sorted(rooms())
    assert {"tests/", "benchmarks/", "docs/", "tools/"} <= set(beside)
    assert all((ROOT / name).exists() for name in beside)
