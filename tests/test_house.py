"""How the package is laid out: imports, folders, names and tests, read from the source alone.

``python tests/test_house.py --report`` prints the tree with its lines, the files of each folder and
the imports between folders, and every violation.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "om_plugins"

# What is still to be fixed, by check. An entry that is no violation any more must go.
REMAINING: dict[str, set[str]] = {}

# The folders of the rows of features.py
FEATURES = frozenset(
    re.findall(
        rf'"{PACKAGE}\.(\w+)\.feature:',
        (ROOT / PACKAGE / "features.py").read_text(encoding="utf-8"),
    )
)

# A module imports from its own level or from one below. The lowest level comes first.
LEVELS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "types", "protocols", "signals", "hookspecs", "core"}),
    frozenset({"settings", "plugins", "workers", "policies", "builtin"}),
    FEATURES,
    frozenset({"features", "runtime", "wsgi"}),
    frozenset({"flask", "cli", "testing", "new", "monitor"}),
)

# The only imports of one feature from another.
BETWEEN_FEATURES = frozenset(
    {
        ("headers", "csp"),
        ("http_cache", "cache"),
        ("fallback", "chains"),
        ("fallback", "cache"),
        ("gateway", "chains"),
        ("recovery", "chains"),
    }
)
FLASK_USERS = frozenset({"flask", "cli"})
FROM_THE_TOP = frozenset({"__version__"})  # all else that the top exports lies in its own module
MODULES_PER_FOLDER = 12
ENVIRON_KEYS = frozenset({"om_plugins.call", "om_plugins.state", "om_plugins.why"})

# Calls whose first argument is a name of something else than a key of the WSGI environment.
NAMING_CALLS = frozenset(
    {"ContextVar", "getLogger", "PackageLoader", "import_module", "files", "ModuleType"}
)
KEYS_NOT_READ_IN = frozenset({"core.moved"})  # its table lists modules

PUBLIC_FOLDERS = frozenset({"testing"})
PAGES_ABOUT_THE_INSIDE = frozenset({"architecture.md", "changelog.md"})

# Folders of tests that belong to no folder of the package.
OTHER_TESTS = frozenset({"servers", "proof", "example_app", "third_party", "typing"})


class Import(NamedTuple):
    """One import; the names of modules are those within the package, "" is its top."""

    importer: str
    imported: str
    line: int
    name: str | None  # what is taken of it, if it is no module


@dataclass(frozen=True)
class Module:
    """One file of the package. ``name`` is the dotted name within the package, "" for its top."""

    name: str
    path: Path
    source: str
    tree: ast.Module

    @property
    def is_init(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def unit(self) -> str:
        """The folder or module right below the package's top that the module is in."""
        return self.name.partition(".")[0]

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @cached_property
    def lines(self) -> tuple[int, int]:
        """Lines of code and of docstrings; blank lines and comments are neither."""
        documented: set[int] = set()
        for node in self.nodes:
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0] if node.body else None
                if (
                    isinstance(first, ast.Expr)
                    and isinstance(first.value, ast.Constant)
                    and isinstance(first.value.value, str)
                ):
                    documented.update(range(first.lineno, (first.end_lineno or 0) + 1))
        text = self.source.splitlines()
        filled = {n for n, line in enumerate(text, 1) if line.strip()}
        comments = {n for n in filled if text[n - 1].lstrip().startswith("#")}
        return len(filled - comments - documented), len(filled & documented)


class House:
    """A package's modules and their tests, parsed once.

    Args:
        package: the folder of the package.
        tests: the folder of its tests.
        docs: the folder of its pages.
    """

    def __init__(self, package: Path, tests: Path, docs: Path) -> None:
        self.package = package
        self.tests = tests
        self.docs = docs
        self.modules: dict[str, Module] = {}
        for path in sorted(package.rglob("*.py")):
            parts = list(path.relative_to(package).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            source = path.read_text(encoding="utf-8")
            name = ".".join(parts)
            self.modules[name] = Module(name, path, source, ast.parse(source))

    @cached_property
    def imports(self) -> list[Import]:
        """Every import of one module of the package by another, wherever it stands."""
        return [found for module in self.modules.values() for found in self._imports_of(module)]

    def _imports_of(self, module: Module) -> list[Import]:
        found: list[Import] = []
        skipped = _lazy_exports(module) if module.is_init else set()
        for node in module.nodes:
            if node in skipped:
                continue
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top, _, rest = alias.name.partition(".")
                    if top == PACKAGE:
                        found.append(Import(module.name, rest, node.lineno, None))
            elif isinstance(node, ast.ImportFrom):
                base = self._base_of(module, node)
                if base is None:
                    continue
                for alias in node.names:
                    inner = f"{base}.{alias.name}".lstrip(".")
                    if inner in self.modules:
                        found.append(Import(module.name, inner, node.lineno, None))
                    else:
                        found.append(Import(module.name, base, node.lineno, alias.name))
        return found

    def _base_of(self, module: Module, node: ast.ImportFrom) -> str | None:
        """The module of the package that a ``from`` names, if it is one."""
        if not node.level:
            top, _, rest = (node.module or "").partition(".")
            return rest if top == PACKAGE else None
        folder = module.name.split(".") if module.name else []
        if not module.is_init:
            folder = folder[:-1]
        folder = folder[: len(folder) - (node.level - 1)]
        return ".".join([*folder, *([node.module] if node.module else [])])

    @cached_property
    def units(self) -> list[str]:
        return sorted({m.unit for m in self.modules.values() if m.unit})

    @cached_property
    def ways(self) -> Counter[tuple[str, str]]:
        """How many imports lead from one folder (or module at the top) to another."""
        count: Counter[tuple[str, str]] = Counter()
        for found in self.imports:
            source, target = _unit(found.importer), _unit(found.imported)
            if source and target and source != target:
                count[source, target] += 1
        return count


def read() -> House:
    """The package of this checkout."""
    return House(ROOT / PACKAGE, ROOT / "tests", ROOT / "docs")


def _unit(name: str) -> str:
    return name.partition(".")[0]


def _lazy_exports(module: Module) -> set[ast.AST]:
    """The imports for types of an ``__init__`` that exports by ``__getattr__``: none runs."""
    if not any(
        isinstance(node, ast.FunctionDef) and node.name == "__getattr__"
        for node in module.tree.body
    ):
        return set()
    return {
        inner
        for node in module.tree.body
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }


# Each check gives the violations: the entry of REMAINING, and what to say about it.

Violations = dict[str, str]


def circles(house: House) -> Violations:
    """Modules that import each other, directly or over others."""
    graph: dict[str, set[str]] = defaultdict(set)
    for found in house.imports:
        if found.importer != found.imported:
            graph[found.importer].add(found.imported)
    violations: Violations = {}
    for group in _components(graph):
        units = " ".join(sorted({_unit(name) or PACKAGE for name in group}))
        text = "these import each other: " + ", ".join(sorted(group))
        violations[units] = f"{violations[units]}; {text}" if units in violations else text
    return violations


def _components(graph: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components of two and more (Tarjan, 1972; without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    stacked: set[str] = set()
    components: list[set[str]] = []
    for root in sorted(graph):
        if root in index:
            continue
        work = [(root, iter(sorted(graph[root])))]
        index[root] = low[root] = len(index)
        stack.append(root)
        stacked.add(root)
        while work:
            node, following = work[-1]
            for target in following:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    stacked.add(target)
                    work.append((target, iter(sorted(graph.get(target, ())))))
                    break
                if target in stacked:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component: set[str] = set()
                    while node not in component:
                        component.add(stack.pop())
                    stacked -= component
                    if len(component) > 1:
                        components.append(component)
    return components


def full_folders(house: House) -> Violations:
    """Folders of more modules than a reader keeps in mind; ``__init__.py`` does not count."""
    count = Counter(m.path.parent for m in house.modules.values() if not m.is_init)
    return {
        folder.relative_to(house.package.parent).as_posix(): f"{number} modules"
        for folder, number in count.items()
        if number > MODULES_PER_FOLDER
    }


def forbidden_ways(house: House) -> Violations:
    """Imports that lead to a higher level, or from one feature to another that is not allowed."""
    level = {unit: number for number, units in enumerate(LEVELS) for unit in units}
    violations: dict[str, list[str]] = defaultdict(list)
    for found in house.imports:
        source, target = _unit(found.importer), _unit(found.imported)
        if not source or source == target:
            continue
        where = f"{found.importer}:{found.line}"
        if not target:
            if found.name not in FROM_THE_TOP:
                violations[f"{source} -> {PACKAGE}"].append(f"{where} ({found.name})")
        elif source not in level or target not in level:
            continue
        elif level[source] < level[target] or (
            {source, target} <= FEATURES and (source, target) not in BETWEEN_FEATURES
        ):
            violations[f"{source} -> {target}"].append(where)
    strangers = {unit: ["has no level"] for unit in house.units if unit not in level}
    return {way: ", ".join(text) for way, text in {**violations, **strangers}.items()}


def flask_elsewhere(house: House) -> Violations:
    """Modules outside of ``flask/`` and ``cli/`` that import Flask."""
    violations: Violations = {}
    for module in house.modules.values():
        if module.unit in FLASK_USERS:
            continue
        for node in module.nodes:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            if any(name.partition(".")[0] == "flask" for name in names):
                violations[module.name] = f"line {node.lineno} imports Flask"
    return violations


def shared_class_names(house: House) -> Violations:
    """Class names that stand for two things."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in house.modules.values():
        for node in module.nodes:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{module.name}:{node.lineno}")
    return {
        name: "stands in " + ", ".join(where) for name, where in places.items() if len(where) > 1
    }


def untested(house: House) -> Violations:
    """Modules without a test of their name, and folders of tests that mirror no folder."""
    covered: set[str] = set()
    mirrored: set[str] = set()
    violations: Violations = {}
    for path in house.tests.rglob("test_*.py"):
        folder = path.parent.relative_to(house.tests)
        mirrored.add(".".join([*folder.parts, path.stem.removeprefix("test_")]))
        if docstring := re.match(r'"""(.*?)"""', path.read_text(encoding="utf-8"), re.DOTALL):
            covered.update(
                dotted or path.replace("/", ".")
                for dotted, path in re.findall(
                    rf"\b(?:{PACKAGE}\.(\w+(?:\.\w+)*)|(\w+(?:/\w+)+)\.py\b)", docstring[1]
                )
            )
        if (
            folder.parts
            and folder.parts[0] not in OTHER_TESTS
            and not (house.package / folder).is_dir()
        ):
            violations[f"tests/{folder.as_posix()}"] = "mirrors no folder of the package"
    for name, module in house.modules.items():
        if not module.is_init and name not in covered | mirrored:
            path = module.path.relative_to(house.package).parent / f"test_{module.path.name}"
            violations[name] = (
                f'no tests/{path}, and no docstring of a test names "{PACKAGE}.{name}"'
            )
    return violations


def environ_keys(house: House) -> Violations:
    """Keys of ours in the WSGI environment, but the two that are allowed."""
    violations: Violations = {}
    for module in house.modules.values():
        if module.name in KEYS_NOT_READ_IN:
            continue
        naming = {
            call.args[0]
            for call in module.nodes
            if isinstance(call, ast.Call) and call.args and _called(call) in NAMING_CALLS
        } | {
            joined.right  # a file's name
            for joined in module.nodes
            if isinstance(joined, ast.BinOp) and isinstance(joined.op, ast.Div)
        }
        for node in module.nodes:
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.fullmatch(rf"{PACKAGE}\.\w+", node.value)
                and node.value not in ENVIRON_KEYS
                and node not in naming
            ):
                violations[node.value] = f"{module.name}:{node.lineno}"
    return violations


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    if isinstance(call.func, ast.Subscript) and isinstance(call.func.value, ast.Name):
        return call.func.value.id
    return call.func.id if isinstance(call.func, ast.Name) else ""


def private_in_pages(house: House) -> Violations:
    """Pages for users that name a module in a private folder; ``testing/`` is public."""
    private = {m.name for m in house.modules.values() if m.is_init} - PUBLIC_FOLDERS
    return {
        f"{path.name}: {name[0]}": "export it at the top, or say it in other words"
        for path in house.docs.glob("*.md")
        if path.name not in PAGES_ABOUT_THE_INSIDE
        for name in re.finditer(rf"\b{PACKAGE}\.(\w+)[\w.]*", path.read_text(encoding="utf-8"))
        if name[1] in private
    }


def unfinished_names(house: House) -> Violations:
    """Files with two underscores in their names: they wait for being merged."""
    return {
        path.relative_to(folder.parent).as_posix(): "merge it, or give it a name of its own"
        for folder in (house.package, house.tests)
        for path in folder.rglob("*.py")
        if "__" in path.stem.removeprefix("__").removesuffix("__")
    }


CHECKS = {
    check.__name__: check
    for check in (
        circles,
        full_folders,
        forbidden_ways,
        flask_elsewhere,
        shared_class_names,
        untested,
        environ_keys,
        private_in_pages,
        unfinished_names,
    )
}


@pytest.fixture(scope="module")
def house():
    return read()


@pytest.fixture(scope="module")
def violations(house):
    return {name: check(house) for name, check in CHECKS.items()}


@pytest.mark.parametrize("name", CHECKS)
def test_there_is_no_violation(violations, name):
    found = violations[name]
    new = {key: text for key, text in found.items() if key not in REMAINING.get(name, ())}
    assert not new, "\n" + "\n".join(f"{key}: {text}" for key, text in sorted(new.items()))


@pytest.mark.parametrize("name", CHECKS)
def test_the_table_of_what_remains_only_shrinks(violations, name):
    gone = REMAINING.get(name, set()) - violations[name].keys()
    assert not gone, f"no longer a violation, so take it out of REMAINING[{name!r}]: {sorted(gone)}"


def test_the_table_names_checks_that_there_are():
    assert REMAINING.keys() <= CHECKS.keys()


@pytest.mark.parametrize(
    ("module", "most"), [("runtime.py", 200), ("wsgi.py", 200), ("flask/extension.py", 300)]
)
def test_the_modules_that_only_wire_stay_short(module, most):
    assert len((ROOT / PACKAGE / module).read_text(encoding="utf-8").splitlines()) <= most


def test_the_picture_of_the_folders_is_up_to_date(house):
    spec = importlib.util.spec_from_file_location("structure", ROOT / "docs/generate_structure.py")
    structure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(structure)
    assert structure.PICTURE.read_text(encoding="utf-8") == structure.draw(
        house, LEVELS, BETWEEN_FEATURES
    ), "run python docs/generate_structure.py"


# Every check finds what it is for, in a small package that is wrong.


@pytest.fixture
def build(tmp_path):
    """Write files, given as a table of path and text, and give the house that they are."""

    def write(files):
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            if path.startswith(PACKAGE):
                for folder in file.relative_to(tmp_path).parents[:-1]:
                    (tmp_path / folder / "__init__.py").touch()
        return House(tmp_path / PACKAGE, tmp_path / "tests", tmp_path / "docs")

    return write


@pytest.mark.parametrize(
    "back",
    [
        "from .a import A",
        "from . import a",
        "from om_plugins.cache.a import A",
        "import om_plugins.cache.a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import A",
        "def later():\n    from .a import A",
    ],
)
def test_a_circle_is_found(build, back):
    house = build({"om_plugins/cache/a.py": "from .b import B", "om_plugins/cache/b.py": back})
    assert circles(house) == {"cache": "these import each other: cache.a, cache.b"}


def test_a_circle_over_three_folders_is_found(build):
    house = build(
        {
            "om_plugins/cache/a.py": "from ..chains.b import B",
            "om_plugins/chains/b.py": "from ..csp.deep.c import C",
            "om_plugins/csp/deep/c.py": "from ...cache import a",
            "om_plugins/csp/d.py": "from .deep.c import C",
        }
    )
    assert list(circles(house)) == ["cache chains csp"]


def test_exports_of_an_init_make_a_circle_unless_they_are_lazy(build):
    user = {"om_plugins/cache/a.py": "from . import B", "om_plugins/cache/b.py": "from .a import A"}
    lazy = (
        "if TYPE_CHECKING:\n    from .b import B as B\n"
        "def __getattr__(name):\n    return import_module(name)\n"
    )
    assert circles(build({**user, "om_plugins/cache/__init__.py": "from .b import B"}))
    assert not circles(build({**user, "om_plugins/cache/__init__.py": lazy}))


def test_a_folder_of_thirteen_modules_is_found(build):
    files = {f"om_plugins/cache/m{number}.py": "" for number in range(12)}
    assert not full_folders(build(files))
    assert full_folders(build({**files, "om_plugins/cache/one_more.py": ""})) == {
        "om_plugins/cache": "13 modules"
    }


@pytest.mark.parametrize(
    ("importer", "text", "way"),
    [
        ("core/a.py", "from ..workers.b import B", "core -> workers"),
        ("workers/a.py", "from ..cache import b", "workers -> cache"),
        ("console/a.py", "from ..runtime import Runtime", "console -> runtime"),
        ("console/a.py", "def f():\n    from ..cache.b import B", "console -> cache"),
        ("csp/a.py", "from ..headers.b import B", "csp -> headers"),
        ("csp/deep/a.py", "from ...headers.b import B", "csp -> headers"),
        ("wsgi.py", "from .flask.b import B", "wsgi -> flask"),
        ("cache/a.py", "from .. import OpenManager", "cache -> om_plugins"),
        ("helpers/a.py", "", "helpers"),
    ],
)
def test_a_forbidden_way_is_found(build, importer, text, way):
    files = {f"om_plugins/{folder}/b.py": "" for folder in ("workers", "cache", "headers", "flask")}
    files |= {"om_plugins/runtime.py": "", f"om_plugins/{importer}": text}
    assert list(forbidden_ways(build(files))) == [way]


@pytest.mark.parametrize(
    ("importer", "text"),
    [
        ("headers/a.py", "from ..csp.b import B"),
        ("fallback/a.py", "from ..cache.b import B"),
        ("cache/a.py", "from ..core.b import B\nfrom .. import __version__, errors"),
        ("runtime.py", "from .cache.b import B\nfrom .wsgi import X"),
        ("cli/a.py", "from ..flask.b import B"),
    ],
)
def test_an_allowed_way_is_none(build, importer, text):
    files = {f"om_plugins/{folder}/b.py": "" for folder in ("csp", "cache", "core", "flask")}
    files |= {"om_plugins/wsgi.py": "", "om_plugins/errors.py": ""}
    assert not forbidden_ways(build({**files, f"om_plugins/{importer}": text}))


@pytest.mark.parametrize("text", ["import flask.json", "def f():\n    from flask import g"])
def test_flask_is_found_outside_of_its_folder(build, text):
    assert list(flask_elsewhere(build({"om_plugins/csp/a.py": text}))) == ["csp.a"]
    assert not flask_elsewhere(build({"om_plugins/csp/a.py": "from ..flask import b"}))
    assert not flask_elsewhere(build({"om_plugins/csp/a.py": "", "om_plugins/flask/b.py": text}))


def test_a_class_name_for_two_things_is_found(build):
    house = build(
        {
            "om_plugins/cache/a.py": "class Entry: ...\nclass Other: ...",
            "om_plugins/csp/b.py": "def f():\n    class Entry: ...",
        }
    )
    assert shared_class_names(house) == {"Entry": "stands in cache.a:1, csp.b:2"}


def test_a_module_without_test_is_found(build):
    files = {
        "om_plugins/cache/a.py": "",
        "om_plugins/cache/b.py": "",
        "om_plugins/wsgi.py": "",
        "tests/cache/test_a.py": "",
        "tests/test_wsgi.py": "",
    }
    assert list(untested(build(files))) == ["cache.b"]
    for name in ("om_plugins.cache.b", "cache/b.py"):
        named = {"tests/cache/test_a.py": f'"""Entries; covers ``{name}``."""'}
        assert not untested(build({**files, **named}))


def test_tests_of_a_folder_that_is_gone_are_found(build):
    files = {
        "om_plugins/__init__.py": "",
        "tests/caching/test_a.py": "",
        "tests/proof/test_b.py": "",
    }
    assert list(untested(build(files))) == ["tests/caching"]


@pytest.mark.parametrize(
    "text",
    [
        'environ["om_plugins.nonce"]',
        'environ.get("om_plugins.nonce")',
        'NONCE = "om_plugins.nonce"',
        'environ |= {"om_plugins.nonce": 1}',
    ],
)
def test_a_key_of_the_environ_is_found(build, text):
    house = build({"om_plugins/csp/a.py": text})
    assert environ_keys(house) == {"om_plugins.nonce": "csp.a:1"}


def test_what_is_no_key_of_the_environ_passes(build):
    text = (
        'environ["om_plugins.state"], environ["om_plugins.call"], environ["wsgi.input"]\n'
        'logging.getLogger("om_plugins.nonce")\nContextVar[int]("om_plugins.x", default=0)\n'
        'import_module("om_plugins.cache")\nfolder / "om_plugins.mo"\n'
        '"om_plugins.builtin.stores.file"\n'
    )
    assert not environ_keys(build({"om_plugins/csp/a.py": text}))


def test_a_private_module_on_a_page_is_found(build):
    text = "`om_plugins.nonce`, `om_plugins.errors`, `om_plugins.testing.fakes`, {}\n"
    files = {f"om_plugins/{name}.py": "" for name in ("errors", "testing/fakes", "csp/nonce")}
    assert not private_in_pages(build({**files, "docs/a.md": text}))
    wrong = {"docs/a.md": text.format("from om_plugins.csp.nonce import nonce")}
    assert list(private_in_pages(build({**files, **wrong}))) == ["a.md: om_plugins.csp.nonce"]


def test_a_name_of_an_unfinished_move_is_found(build):
    house = build(
        {"om_plugins/csp/a__b.py": "", "om_plugins/__main__.py": "", "tests/csp/test_a__b.py": ""}
    )
    assert list(unfinished_names(house)) == ["om_plugins/csp/a__b.py", "tests/csp/test_a__b.py"]


def test_what_the_tests_install_loads_no_plugin_into_pytest(pytestconfig):
    """The one of Dash raises a warning of pytest when it is loaded, which is an error here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split("[>=[]", one)[0] for one in project["optional-dependencies"]["test"]}
    loaded = {dist.project_name for _, dist in pytestconfig.pluginmanager.list_plugin_distinfo()}
    assert loaded & wanted <= {"hypothesis", "pytest-xdist"}, "add -p no:… to addopts"


# The report


def report(house: House) -> str:
    """The tree with lines and files of each folder, imports between folders, violations."""
    rows: list[str] = []
    total_code = total_doc = 0
    folders: dict[Path, list[Module]] = defaultdict(list)
    for module in house.modules.values():
        folders[module.path.parent].append(module)
    for folder in sorted(folders):
        name = folder.relative_to(house.package.parent).as_posix()
        modules = folders[folder]
        code = sum(module.lines[0] for module in modules)
        documented = sum(module.lines[1] for module in modules)
        total_code, total_doc = total_code + code, total_doc + documented
        count = sum(not module.is_init for module in modules)
        rows.append(f"{name + '/':<44}{code:>7}{documented:>7}   {count} modules")
        for module in sorted(modules, key=lambda m: m.path.name):
            if sum(module.lines):
                rows.append(f"    {module.path.name:<40}{module.lines[0]:>7}{module.lines[1]:>7}")
    count = sum(not module.is_init for module in house.modules.values())
    head = f"{'':<44}{'code':>7}{'doc':>7}"
    rows = [head, *rows, f"{'together':<44}{total_code:>7}{total_doc:>7}   {count} modules", ""]
    rows.append("imports between folders")
    for unit in house.units:
        ways = sorted((b, n) for (a, b), n in house.ways.items() if a == unit)
        rows.append(f"    {unit:<16}-> " + (", ".join(f"{b} {n}" for b, n in ways) or "nothing"))
    rows += ["", "violations"]
    for name, check in CHECKS.items():
        found = check(house)
        rows.append(f"    {name}: {len(found)}")
        rows += [f"        {key}: {text}" for key, text in sorted(found.items())]
    return "\n".join(rows)


if __name__ == "__main__":
    if sys.argv[1:] != ["--report"]:
        sys.exit(f"usage: python {sys.argv[0]} --report")
    print(report(read()))
