"""The mutants and what runs them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("mutants", Path(__file__).with_name("mutants.py"))
mutants = importlib.util.module_from_spec(_spec)
sys.modules["mutants"] = mutants
_spec.loader.exec_module(mutants)
Mutant = mutants.Mutant


def test_each_text_is_found_exactly_once():
    package = mutants.ROOT / mutants.PACKAGE
    errors = [error for row in mutants.MUTANTS if (error := mutants.find_error(row, package))]
    assert not errors, "\n" + "\n".join(errors)


def test_there_are_forty_mutants_all_over_the_package():
    assert len(mutants.MUTANTS) >= 40
    assert len(set(mutants.MUTANTS)) == len(mutants.MUTANTS)
    assert len({row.file.partition("/")[0] for row in mutants.MUTANTS}) >= 14


@pytest.mark.proof
def test_no_mutant_survives():
    found = mutants.find_survivors(
        list(mutants.MUTANTS), mutants.ROOT / mutants.PACKAGE, mutants.ROOT
    )
    assert not found, "\n" + "\n".join(found)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A package with one guard, and a project with a test of it."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # starts in a third of the time
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "price.py").write_text(
        "def total(count):\n    if count > 9:\n        count = 9\n    return count\n\n\n"
        "def half(count):\n    return count // 2\n"
    )
    (tmp_path / "test_price.py").write_text(
        "from shop.price import total\n\n\n"
        "def test_at_most_nine():\n    assert total(12) == 9\n\n\n"
        "def test_wrong():\n    assert total(1) == 2\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    return package


NINE = "test_price.py::test_at_most_nine"


@pytest.mark.parametrize(
    ("mutant", "error"),
    [
        (Mutant("price.py", "count > 9", "count > 99", NINE), None),
        (Mutant("price.py", "count > 9", "count > 8", NINE), "SURVIVED"),
        (Mutant("price.py", "count // 2", "count // 3", NINE), "SURVIVED"),
        (Mutant("price.py", "count > 9", "count > 99", "test_price.py"), "without a mutant"),
        (Mutant("price.py", "count > 9", "count > 99", "test_gone.py"), "without a mutant"),
        (Mutant("price.py", "count > 9:", "count > 9", NINE), "pytest ended with"),
    ],
)
def test_a_mutant_must_be_noticed_by_tests_that_else_pass(shop, mutant, error):
    before = (shop / "price.py").read_text()
    found = mutants.find_survivors([mutant], shop, shop.parent)
    assert [one.startswith(error) for one in found] == ([True] if error else [])
    assert (shop / "price.py").read_text() == before


def test_tests_that_see_another_package_prove_nothing(shop):
    (shop.parent / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=prepend\n")
    mutant = Mutant("price.py", "count > 9", "count > 99", NINE)
    (error,) = mutants.find_survivors([mutant], shop, shop.parent)
    assert error.startswith("without a mutant pytest ends with 70")
    assert f"the tests saw {shop / '__init__.py'}" in error


def test_a_text_must_stand_there_exactly_once(shop):
    many = mutants.find_error(Mutant("price.py", "count", "", NINE), shop)
    assert "stands there 6 times, lengthen it" in many
    gone = mutants.find_error(Mutant("price.py", "if count >= 9:", "", NINE), shop)
    assert "most like it is price.py:2\n    'if count > 9:'" in gone


def test_a_text_that_has_moved_is_found_where_it_is_now(shop):
    gone = mutants.find_error(Mutant("cost.py", "count > 9", "", NINE), shop)
    assert gone.startswith("cost.py does not exist; the text is in price.py:2")
    other = mutants.find_error(Mutant("__init__.py", "count > 9", "", NINE), shop)
    assert other.startswith("__init__.py: the text is not there; it is in price.py:2")


def test_arguments_for_pytest_may_end_with_an_expression():
    assert mutants.split("a.py b.py::c -k not d or e") == ["a.py", "b.py::c", "-k", "not d or e"]
