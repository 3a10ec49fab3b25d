"""Everything in this folder also holds in a forked child and in a process patched by gevent."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = pytest.mark.proof


@pytest.mark.parametrize("where", ["forked", "gevent"])
def test_all_of_this_holds_elsewhere(where):
    if "OM_TESTS_ELSEWHERE" in os.environ:
        pytest.skip("these are the tests that run elsewhere")
    if where == "gevent":
        pytest.importorskip("gevent")
    done = subprocess.run(
        [
            *(sys.executable, str(HERE / "run_elsewhere.py"), where, "-q", "-x"),
            *("-p", "no:cacheprovider", "--ignore", str(Path(__file__))),
            *("-m", "not proof", str(HERE), str(HERE.parent / "policies")),
        ],
        cwd=HERE.parent.parent,
        env={**os.environ, "OM_TESTS_ELSEWHERE": where},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None, said[-4000:]
    assert int(passed[1]) > 350
