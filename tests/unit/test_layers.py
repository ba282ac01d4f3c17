"""The layers of docs/architecture.md, read from the imports, and a few rules for every module."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ulvm

ROOT = Path(ulvm.__file__).parent

# From the bottom to the top: what lies here may import what is named, and itself. A name stands for
# a module or for a package with all in it.
LAYERS: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "units": frozenset(),
    "faultpoints": frozenset(),
    "dm_ioctl": frozenset(),
    "blockdev": frozenset({"errors", "units"}),
    "dm": frozenset({"errors", "units", "dm_ioctl", "blockdev", "faultpoints"}),
    # Of blockdev only the type of a buffer: metadata do no I/O.
    "metadata": frozenset({"errors", "units", "blockdev.base"}),
    "vgstore": frozenset({"errors", "units", "faultpoints", "blockdev", "metadata"}),
    "activation": frozenset({"errors", "units", "dm_ioctl", "metadata"}),
    "mounts": frozenset({"errors"}),
    "exports": frozenset({"errors", "units", "blockdev", "mounts"}),
    # The two sides of the control socket; only the service knows the device mapper.
    "daemon.messages": frozenset({"errors", "dm_ioctl"}),
    "daemon.state": frozenset({"errors"}),
    "daemon.process": frozenset({"errors"}),
    "daemon.client": frozenset(
        {"errors", "faultpoints", "dm_ioctl"}
        | {"daemon.messages", "daemon.state", "daemon.process"}
    ),
    "daemon.control": frozenset({"errors", "faultpoints", "daemon.messages"}),
    "daemon.commands": frozenset(),
    "daemon.history": frozenset(),
    "daemon.measure": frozenset({"dm", "errors"}),
    "daemon.links": frozenset(),
    "daemon.syslog": frozenset(),
    "daemon.monitor": frozenset(
        {"errors", "units", "dm", "metadata", "activation", "daemon.commands", "daemon.history"}
        | {"vgstore.policy"}
    ),
    "daemon.repairs": frozenset({"errors", "dm", "activation", "daemon.commands"}),
    "daemon.volumes": frozenset({"errors", "blockdev", "dm", "activation", "exports", "mounts"}),
    "daemon.service": frozenset(
        {
            "errors",
            "units",
            "faultpoints",
            "blockdev",
            "dm",
            "dm_ioctl",
            "vgstore",
            "activation",
            "exports",
        }
        | {"mounts", "daemon"}
    ),
    "lvm": frozenset(
        {
            "errors",
            "units",
            "faultpoints",
            "dm_ioctl",
            "blockdev",
            "metadata",
            "vgstore",
            "activation",
        }
        | {"daemon.client", "mounts"}
    ),
    # Of lvm only how sizes are written; of vgstore only the types of a scan.
    "report": frozenset(
        {"errors", "units", "dm_ioctl", "metadata", "activation", "vgstore.scan", "lvm.sizes"}
    ),
    "backup": frozenset(
        {
            "errors",
            "units",
            "faultpoints",
            "dm_ioctl",
            "blockdev",
            "metadata",
            "vgstore",
            "activation",
        }
        | {"mounts", "lvm"}
    ),
    "demo": frozenset({"errors", "units", "blockdev", "lvm", "backup"}),
    # Of dm only the grammar of tables, for `dmsetup`.
    "cli": frozenset(
        {
            "errors",
            "units",
            "faultpoints",
            "dm_ioctl",
            "dm.table",
            "blockdev",
            "metadata",
            "vgstore",
        }
        | {"activation", "mounts", "daemon.client", "lvm", "report", "backup", "demo"}
    ),
}

# A third-party library has one home; NumPy is a language of its own.
LIBRARIES = {
    "click": "cli",
    "mfusepy": "exports.fuse_session",
    "rich": "cli",
    "xxhash": "backup.digest",
    "zstandard": "backup.frames",
    "numpy": "",
}

# Where os.environ may be touched, and why.
ENVIRONMENT = {
    "cli.main": "hands it to the context of a command; fault points",
    "cli.beside": "looks in PATH for the program that it stands before",
    "cli.context": "the settings of a command",
    "cli.lvmdump": "puts its archive into the home directory",
    "daemon.service": "the settings of the daemon",
    "demo.host": "passes it on, with directories of the demonstration's own",
    "backup.sinks.command": "passes it on to the user's command",
    "backup.quiesce.commands": "passes it on to the user's commands",
    "exports.fuse_session": "tells mfusepy which libfuse to load; it has no other way",
}

MAX_LINES = 500


def _name(path: Path) -> str:
    """`dm.table` for .../ulvm/dm/table.py, `dm` for .../ulvm/dm/__init__.py, "" for ulvm itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {_name(path): path for path in sorted(ROOT.rglob("*.py"))}
MODULES = sorted(PATHS)


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(PATHS[module].read_text(encoding="utf-8"))


def _imports(module: str) -> Iterator[str]:
    """Absolute dotted names; `from ulvm.a import b` gives ulvm.a.b if that is a module."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner.removeprefix("ulvm.") in PATHS else node.module


def _inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _layer(module: str) -> str | None:
    return next((layer for layer in LAYERS if _inside(module, layer)), None)


def test_modules_are_found() -> None:
    assert len(MODULES) > 100
    assert {"dm.mapper", "cli.main", "daemon.service"} <= set(MODULES)


def test_the_table_has_no_circles() -> None:
    """What a layer may import stands above it in the table."""
    seen: list[str] = []
    for layer, allowed in LAYERS.items():
        for name in allowed:
            # `daemon.service` may take all of its own package, which is split into rows.
            assert name in PATHS, f"{layer} may import {name}, which does not exist"
            assert any(_inside(name, low) or _inside(low, name) for low in seen), (layer, name)
        seen.append(layer)


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_go_down(module: str) -> None:
    layer = _layer(module)
    if layer is None:
        assert PATHS[module].name == "__init__.py", f"{module} is in no layer"
        allowed: frozenset[str] = frozenset()
    else:
        allowed = LAYERS[layer] | {layer}
    wrong = []
    for imported in _imports(module):
        if not _inside(imported, "ulvm"):
            continue
        name = imported.removeprefix("ulvm").removeprefix(".")
        # `ulvm` itself holds nothing but the version.
        if name and not any(_inside(name, package) for package in allowed):
            wrong.append(imported)
    assert not wrong, f"{module} is in layer {layer}, which does not import {', '.join(wrong)}"


@pytest.mark.parametrize("module", MODULES)
def test_a_library_has_one_home(module: str) -> None:
    for imported in _imports(module):
        library = imported.partition(".")[0]
        if library == "ulvm" or library in sys.stdlib_module_names:
            continue
        assert library in LIBRARIES, f"{module} imports {imported}"
        home = LIBRARIES[library]
        assert not home or _inside(module, home), f"{library} is imported in {home} only"


@pytest.mark.parametrize("module", MODULES)
def test_only_entry_points_look_at_the_environment(module: str) -> None:
    touched = any(
        isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv")
        for node in ast.walk(_tree(module))
    )
    assert not touched or module in ENVIRONMENT


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_short_and_says_what_is_public(module: str) -> None:
    path = PATHS[module]
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES
    body = _tree(module).body
    assert ast.get_docstring(_tree(module)), "no docstring"
    if len(body) == 1 and path.name == "__init__.py":
        return
    exported = next(
        (
            ast.literal_eval(node.value)
            for node in body
            if isinstance(node, ast.Assign)
            and [target.id for target in node.targets if isinstance(target, ast.Name)]
            == ["__all__"]
        ),
        None,
    )
    assert exported is not None, "no __all__"
    defined = {
        name
        for node in ast.walk(_tree(module))
        for name in (
            [node.name]
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
            else [node.id]
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            else [alias.asname or alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert set(exported) <= defined
