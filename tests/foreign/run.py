"""Run the test suites of other packages without and with ``OpenManager(app)`` in each app.

``python tests/foreign/run.py [name…]``: pip brings the suites (their source distributions) and what
they need into an environment of its own. It needs the network. The command exits with 1 when a test
that passes without the line does not pass with it, or when the line makes a suite 1.3 times as
long. Times are seconds of CPU, the least of some rounds that alternate.
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
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "build" / "foreign"
PYTHON = HOME / "venv" / "bin" / "python"
ROUNDS = 3
LIMIT = 1.3


@dataclass(frozen=True, slots=True)
class Suite:
    """A package whose source distribution has its tests."""

    package: str
    version: str
    needs: tuple[str, ...]


SUITES = (
    Suite("apiflask", "3.1.2", ("asgiref", "openapi-spec-validator", "pyyaml")),
    Suite("flask-login", "0.6.3", ("asgiref", "semantic_version")),
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
    packages = {f"{suite.package}=={suite.version}" for suite in suites}
    needs = {need for suite in suites for need in suite.needs}
    pip("install", str(wheel), "pytest", *sorted(packages | needs))
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
    without, with_line = min(times[False]), min(times[True])
    print(
        f"{suite.package} {suite.version}: {len(passed)} of {len(outcomes[False])} tests pass, "
        f"with the line {len(passed) - len(lost)} of these; "
        f"{without:.2f} s, with the line {with_line:.2f} s = {with_line / without:.2f} x"
    )
    for test in lost:
        print(f"  no longer passes: {test}")
    if not passed:
        print("  no test passes without the line: the suite did not run")
    slow = with_line > LIMIT * without
    if slow:
        print(f"  more than {LIMIT} x")
    return int(bool(lost) or not passed or slow)


def run(suite: Suite, *, line: bool) -> tuple[dict[str, str], float]:
    """Run a suite once; return the outcome of each test, and the seconds of CPU."""
    with TemporaryDirectory() as temporary:
        outcomes = Path(temporary) / "outcomes.json"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [
                *(PYTHON, "-m", "pytest", "-q", "-p", "with_line", "-p", "no:cacheprovider"),
                *("-o", "addopts=", "tests"),
            ],
            cwd=folder_of(suite),
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parent),
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
