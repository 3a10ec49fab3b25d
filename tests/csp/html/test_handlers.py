import pytest

from om_plugins.csp.html.handlers import guards_action, is_question


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


@pytest.mark.parametrize(
    "code",
    [
        "return confirm('Sure?')",
        ' return window.confirm( "It\'s gone. Sure?" ) ; ',
        "return confirm(&#39;Sure?&#39;)",
        "return confirm('')",
    ],
)
def test_a_question_does_nothing_but_ask(code):
    assert is_question(code)


@pytest.mark.parametrize(
    "code",
    [
        "return confirm('a' + document.cookie)",
        "return confirm('a'); steal()",
        "return confirm('a') || steal()",
        "return confirm(`${steal()}`)",
        "return confirm(steal())",
        "return confirm('\\x27)')",
        "return confirm('a\nb')",
        "return confirm('a&#39;+steal()+&#39;')",
        "confirm('a')",
        "return prompt('a')",
        "return top.confirm('a')",
        "if (!confirm('a')) return false",
    ],
)
def test_whatever_else_is_in_it_makes_it_no_question(code):
    assert not is_question(code)
