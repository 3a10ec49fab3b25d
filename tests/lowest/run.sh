#!/bin/sh
# Run the tests with the lowest versions that pyproject.toml allows.
set -eu
python=${PYTHON:-python3}
venv=build/lowest
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/pip" install --quiet "$(ls build/wheel/*.whl)" -r tests/lowest/requirements.txt
# the example app asks for a newer Flask (extra "demo"): its TRUSTED_HOSTS
"$venv/bin/pytest" -q --ignore tests/example_app -m "not proof and not browser and not server" tests
