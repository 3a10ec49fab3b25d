"""People read plain words in their own language."""

from __future__ import annotations

import gettext
from pathlib import Path

import pytest

import om_plugins
from om_plugins import Settings
from om_plugins.builtin import recovery_steps as steps
from om_plugins.core.translations import display_name, load_translations
from om_plugins.errors import ConfigError
from om_plugins.recovery import messages as wording

FOLDER = Path(om_plugins.__file__).parent / "locale" / "ko" / "LC_MESSAGES"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("ko", "ko"),
        ("ko-KR,ko;q=0.9,en;q=0.8", "ko"),
        ("en-US,en;q=0.9,ko;q=0.8", "en"),
        ("fr-FR,ko;q=0.5,en;q=0.4", "ko"),
        ("en;q=0.1,ko-KR;q=0.8", "ko"),
        ("ko;q=0,de", "en"),
        ("../../etc/passwd", "en"),
        ("ko," * 1000, "en"),
    ],
)
def test_the_language_is_the_one_that_the_browser_likes_best(header, language):
    assert load_translations({"HTTP_ACCEPT_LANGUAGE": header}).language == language
    assert load_translations(header).language == language


def test_a_name_is_filled_in_and_never_read_as_a_template():
    ko, en = load_translations("ko"), load_translations("en")
    assert en("{name} is being repaired", name="{other}") == "{other} is being repaired"
    assert "{other}" in ko(wording.REPAIRING, name="{other}")
    assert ko(wording.REPAIRING, name="도우미").startswith("도우미")
    assert ko.gettext("Refresh") == "새로 고침"
    assert en("100 % of {this}") == "100 % of {this}"


def test_what_has_no_translation_is_said_as_it_is():
    assert load_translations("ko")("Quite unheard of") == "Quite unheard of"


def test_every_sentence_of_recovery_is_translated_with_its_blanks():
    texts = {k: v for k, v in vars(wording).items() if k.isupper() and isinstance(v, str)}
    sentences = [v for k, v in texts.items() if k != "OPERATORS"]
    assert sentences
    for sentence in sentences:
        said = load_translations("ko").gettext(sentence)
        assert said != sentence, sentence
        assert said.count("{name}") == sentence.count("{name}")


def test_the_steps_of_recovery_are_translated():
    for step in vars(steps).values():
        name = vars(step).get("name") if isinstance(step, type) else None
        if isinstance(name, str):
            assert load_translations("ko").gettext(name) != name, name


def test_the_compiled_catalogue_is_that_of_the_text():
    """After a change: ``pybabel compile -d om_plugins/locale -D om_plugins``."""
    pofile = pytest.importorskip("babel.messages.pofile")
    with (FOLDER / "om_plugins.po").open("rb") as text:
        written = {m.id: m.string for m in pofile.read_po(text, locale="ko") if m.id}
    with (FOLDER / "om_plugins.mo").open("rb") as compiled:
        catalogue = gettext.GNUTranslations(compiled)
    assert {k: v for k, v in catalogue._catalog.items() if k} == written
    assert all(written.values())


def test_places_have_friendly_names():
    names = {"assistant": "The assistant", "route:/ask": "Questions", "/talk": "The talk"}
    assert display_name("chain:assistant", names) == "The assistant"
    assert display_name("route:/ask", names) == "Questions"
    assert display_name("route:/talk", names) == "The talk"
    assert display_name("chain:price-list", names) == "Price list"
    assert display_name("route:/secret/<int:id>", names) == "This page"
    assert display_name("route:/x", names, load_translations("ko")) == "이 페이지"


def test_a_place_has_a_name_in_each_language_and_the_first_one_stands_in():
    names = {"assistant": {"en": "The assistant", "ko": "도우미"}, "/ask": {"de": "Fragen"}}
    assert display_name("chain:assistant", names) == "The assistant"
    assert display_name("chain:assistant", names, load_translations("ko")) == "도우미"
    assert display_name("route:/ask", names, load_translations("ko")) == "Fragen"


@pytest.mark.parametrize("wrong", ["", 7, {}, {"en": ""}, {"en": 7}, {7: "x"}])
def test_a_name_that_is_no_text_stops_the_start(wrong):
    with pytest.raises(ConfigError, match="OM_DISPLAY_NAMES"):
        Settings.from_mapping({"OM_DISPLAY_NAMES": {"assistant": wrong}})
