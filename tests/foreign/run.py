"""Run the test suites of other packages without and with ``OpenManager(app)`` in each app.

``python tests/foreign/run.py [name…]``: pip brings the suites (their source distributions) and what
they need into an environment of its own. It needs the network. The command exits with 1 when a test
that passes without the line does not pass with it, or when the line makes a suite 1.3 times as
long. Times are seconds of CPU of the whole run, with the start of Python and pytest: medians of
rounds that alternate.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import venv
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "build" / "foreign"
PYTHON = HOME / "venv" / "bin" / "python"
COMMON = ("pytest<9", "sqlalchemy<2.1")  # of which the newest is not what the suites are for
ROUNDS = 5
LIMIT = 1.3


@dataclass(frozen=True, slots=True)
class Suite:
    """A package whose source distribution has its tests.

    Attributes:
        needs: packages of its tests.
        options: of pytest, which loads no plugin by itself.
        known: tests that cannot pass with the line, and why.
    """

    package: str
    version: str
    needs: tuple[str, ...] = ()
    options: str = ""
    known: dict[str, str] = field(default_factory=dict)


SUITES = (
    Suite("apiflask", "3.1.2", ("asgiref", "openapi-spec-validator", "pyyaml")),
    Suite(
        "flask",
        "3.1.3",
        ("asgiref", "greenlet", "python-dotenv"),
        known={
            "tests/test_basic.py::test_app_freed_on_zero_refcount": "an app whose wsgi_app is "
            "wrapped is in a cycle with it, so that the garbage collector frees it"
        },
    ),
    Suite(
        "flask-caching",
        "2.5.1",
        ("asgiref", "pytest-asyncio", "pytest-xprocess", "redis"),
        "-p pytest_asyncio.plugin -o asyncio_default_fixture_loop_scope=function -p xprocess",
    ),
    Suite("flask-compress", "1.25"),
    Suite("flask-cors", "6.0.5"),
    Suite("flask-httpauth", "4.8.1", ("asgiref",)),
    Suite("flask-jwt-extended", "4.7.4", ("cryptography", "python-dateutil")),
    Suite("flask-login", "0.6.3", ("asgiref", "semantic_version")),
    Suite("flask-marshmallow", "1.5.0", ("flask-sqlalchemy", "marshmallow-sqlalchemy")),
    Suite("flask-smorest", "0.47.0", ("asgiref", "pyyaml")),
    Suite("flask-sqlalchemy", "3.1.1"),
    Suite("flask-wtf", "1.3.0", ("flask-babel", "flask-reuploaded")),
)


def main() -> int:
    wheels = sorted((ROOT / "build" / "wheel").glob("*.whl"))
    if not wheels:
        sys.exit("no wheel in build/wheel: run `make foreign`")
    wanted = [suite for suite in SUITES if suite.package in sys.argv[1:] or not sys.argv[1:]]
    prepare(wheels[-1], wanted)
    return max([compare(suite) for suite in wanted], default=0)


def prepare(wheel: Path, suites: list[Suite]) -> None:
    """Make the environment, and unpack the suites beside it."""
    if not PYTHON.exists():
        venv.create(HOME / "venv", with_pip=True)
    (HOME / "pytest.ini").touch()  # for suites without one, lest pytest takes this project's
    packages = {f"{suite.package}=={suite.version}" for suite in suites}
    needs = {need for suite in suites for need in suite.needs}
    pip("install", str(wheel), *COMMON, *sorted(packages | needs))
    pip("install", "--force-reinstall", "--no-deps", str(wheel))
    for suite in suites:
        if folder_of(suite).exists():
            continue
        folder = HOME / suite.package
        shutil.rmtree(folder, ignore_errors=True)
        pip(
            *("download", "--no-deps", "--no-binary", suite.package, "--dest", str(folder)),
            f"{suite.package}=={suite.version}",
        )
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")


def pip(*arguments: str) -> None:
    subprocess.run([PYTHON, "-m", "pip", "--quiet", *arguments], check=True)


def folder_of(suite: Suite) -> Path:
    """Return where the source distribution is; its name is spelt in more than one way."""
    made = [one.parent for one in (HOME / suite.package).glob("*/PKG-INFO")]
    return made[0] if made else HOME / suite.package / "not there"


def compare(suite: Suite) -> int:
    """Run one suite in turns; say what the line changed, and return the exit code."""
    outcomes: dict[bool, dict[str, str]] = {False: {}, True: {}}
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for line in (False, True):
            outcomes[line], seconds = run(suite, line=line)
            times[line].append(seconds)
    passed = [test for test, outcome in outcomes[False].items() if outcome == "passed"]
    lost = [test for test in passed if outcomes[True].get(test) != "passed"]
    ratio = median(after / before for before, after in zip(*times.values(), strict=True))
    print(
        f"{suite.package} {suite.version}: {len(passed)} of {len(outcomes[False])} tests pass, "
        f"with the line {len(passed) - len(lost)} of these; {median(times[False]):.2f} s, "
        f"with the line {median(times[True]):.2f} s, {ratio:.2f} x"
    )
    for test in lost:
        print(f"  no longer passes: {test}: {suite.known.get(test, 'look into it')}")
    if not passed:
        print("  no test passes without the line: the suite did not run")
    slow = ratio > LIMIT
    if slow:
        print(f"  more than {LIMIT} x")
    return int(bool(set(lost) - set(suite.known)) or not passed or slow)


def run(suite: Suite, *, line: bool) -> tuple[dict[str, str], float]:
    """Run a suite once; return the outcome of each test, and the seconds of CPU."""
    with TemporaryDirectory() as temporary:
        outcomes = Path(temporary) / "outcomes.json"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [
                *(PYTHON, "-m", "pytest", "-q", "-p", "with_line"),
                *("-o", f"cache_dir={temporary}", "-o", "addopts=", "tests"),
                *suite.options.split(),
            ],
            cwd=folder_of(suite),
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parent),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                "FOREIGN_LINE": str(int(line)),
                "FOREIGN_OUTCOMES": str(outcomes),
                "XDG_STATE_HOME": temporary,
            },
            capture_output=True,
            text=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if not outcomes.exists():
            sys.exit(f"{suite.package}: pytest did not run\n{done.stdout[-3000:]}{done.stderr}")
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return json.loads(outcomes.read_text()), seconds


if __name__ == "__main__":
    sys.exit(main())
