import pytest

from om_plugins.csp.html.handlers import guards_action


@pytest.mark.parametrize(
    "code",
    [
        "return confirm('Sure?')",
        "return window.confirm('Sure?');",
        "return myConfirm(this)",
        "return (ask())",
        "if (!ok) return false",
        "ok() || event.preventDefault()",
        "ok ? go() : event.returnValue = false",
        "return !locked",
        "name = prompt('Name?')",
    ],
)
def test_a_question_or_a_check_decides_whether_something_happens(code):
    assert guards_action("onclick", code)
    assert guards_action("onsubmit", code)
    assert not guards_action("onkeyup", code)


@pytest.mark.parametrize(
    "code", ["go()", "return true", "return", "return;", "show(); return false", "returned(1)"]
)
def test_what_decides_nothing_is_an_ordinary_handler(code):
    assert not guards_action("onclick", code)


def test_a_form_that_is_never_to_be_sent_as_it_is_depends_on_its_handler():
    assert guards_action("onsubmit", "send(this); return false")
    assert guards_action("onsubmit", "event.preventDefault()")
    assert not guards_action("onsubmit", "count()")
