"""Nothing that is read becomes code, a shell's line or a module's name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ulvm

ROOT = Path(ulvm.__file__).parent
PATHS = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.py"))}

MODULES = frozenset(
    {"code", "codeop", "dill", "marshal", "pickle", "pty", "runpy", "shelve", "yaml"}
)
"""What makes objects or code of bytes, or runs it."""

CALLS = frozenset(
    {
        "__import__", "compile", "eval", "exec", "execfile", "globals", "vars",
        "builtins.eval", "builtins.exec", "builtins.compile", "builtins.__import__",
        "importlib.import_module", "importlib.util.spec_from_file_location",
        "os.system", "os.popen", "os.execl", "os.execle", "os.execlp", "os.execv", "os.execve",
        "os.execvp", "os.execvpe", "os.spawnl", "os.spawnv", "os.spawnlp", "os.spawnvp",
        "subprocess.getoutput", "subprocess.getstatusoutput", "numpy.load", "np.load",
        "logging.config.dictConfig", "logging.config.fileConfig", "tempfile.mktemp",
        "xml.etree.ElementTree.parse", "types.FunctionType", "types.CodeType",
    }
)  # fmt: skip
STARTS = frozenset({"subprocess.run", "subprocess.Popen", "subprocess.call"})
STARTS |= {"subprocess.check_call", "subprocess.check_output"}
KEYWORDS = {"shell": False, "allow_pickle": False, "preexec_fn": None}
"""May be given these values alone."""

SHELLS = frozenset({"/bin/sh", "/bin/bash", "bash", "sh", "zsh"})
"""As a word of their own."""

ALLOWED = {
    ("cli/loading.py", "importlib.import_module"): "names from the table of commands alone",
    ("cli/columns_form.py", "importlib.import_module"): "the module of the reports",
    ("cli/completion_shells.py", "bash"): "the name of a shell that a script is for",
    ("cli/completion_shells.py", "zsh"): "the name of a shell that a script is for",
    ("cli/installed.py", "bash"): "where its script is installed",
    ("cli/installed.py", "zsh"): "where its script is installed",
    ("backup/quiesce/commands.py", "/bin/sh"): "the user's commands, out of the command line",
    ("backup/sinks/command.py", "/bin/sh"): "the user's command; what is filled in is quoted",
    ("mounts/filesystem_size.py", "preexec_fn="): "a function of its own: it lets Ctrl-C through",
    ("mounts/freeze.py", "/bin/sh"): "a script of its own; mount points are arguments",
    ("mounts/volume.py", "preexec_fn="): "a function of its own, which lets signals through",
}
"""(module, call) -> why."""


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or of attributes; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def names_of(tree: ast.Module) -> dict[str, str]:
    """What a name at the beginning stands for: `sp` -> subprocess, `run` -> subprocess.run."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def faults(tree: ast.Module) -> Iterator[str]:
    """All that this test is about."""
    names = names_of(tree)

    def full(node: ast.expr) -> str:
        first, dot, rest = dotted(node).partition(".")
        return names.get(first, first) + dot + rest

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in MODULES:
                yield node.module or ""
        elif isinstance(node, ast.Constant) and node.value in SHELLS:
            yield str(node.value)
        elif isinstance(node, ast.Name | ast.Attribute) and full(node) in CALLS:
            # Not the call alone: passed on it would be called elsewhere.
            yield full(node)
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg in KEYWORDS:
                    value = keyword.value
                    right = isinstance(value, ast.Constant) and value.value is KEYWORDS[keyword.arg]
                    if not right:
                        yield f"{keyword.arg}="
            starts = full(node.func) in STARTS and node.args
            if starts and isinstance(node.args[0], ast.Constant | ast.JoinedStr):
                yield "a program and its arguments in one string"
        elif isinstance(node, ast.List):
            for word, option in zip(node.elts, [*node.elts[1:], None], strict=False):
                safe = isinstance(option, ast.Constant) and option.value == "-P"
                if full(word) == "sys.executable" and not safe:
                    yield "a Python that looks for modules where it is started"


@pytest.mark.parametrize("module", PATHS)
def test_nothing_evaluates_data(module: str) -> None:
    found = set(faults(ast.parse(PATHS[module].read_text(encoding="utf-8"))))
    assert found <= {call for where, call in ALLOWED if where == module}


def test_what_is_allowed_is_there() -> None:
    for module, call in ALLOWED:
        assert call in faults(ast.parse(PATHS[module].read_text(encoding="utf-8"))), (module, call)


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)", "import builtins\nbuiltins.exec(x)", "f = eval", 'run(["sh", "-c", x])',
        "from builtins import eval as e\ne",
        "import pickle", "from pickle import loads", "import yaml.loader", "__import__(x)",
        "from importlib import import_module as load\nload(x)", "import os as o\no.system(x)",
        "import subprocess\nsubprocess.run(x, shell=True)", "run(x, shell=y)",
        "import subprocess as s\ns.Popen(f'ls {x}')", "np.load(x, allow_pickle=True)",
        'import sys\n[sys.executable, "-m", x]', "from sys import executable\n[executable]",
    ],
)  # fmt: skip
def test_each_is_seen(source: str) -> None:
    assert list(faults(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    ["re.compile(x)", "run(x, shell=False)", "a.b().eval", "load(x)", '[sys.executable, "-P", x]'],
)
def test_others_are_not(source: str) -> None:
    assert not list(faults(ast.parse(source)))
