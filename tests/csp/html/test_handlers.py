import pytest

from om_plugins.csp.html.handlers import (
    find_code_maker,
    find_written,
    guards_action,
    is_question,
)


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


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("onsubmit", "validate(event)"),
        ("onsubmit", "check(this, event)"),
        ("ontouchstart", "return confirm('Sure?')"),
        ("ontouchend", "if (!ready) event.preventDefault()"),
        ("onbeforeunload", "return 'Leave?'"),
        ("onkeydown", "return event.key != 'Enter'"),
        ("onkeypress", "if (event.keyCode == 13) return false"),
        ("onclick", "confirm('Sure?') || event.preventDefault()"),
        ("onmousedown", "if (!confirm('Sure?')) this.href = '#'"),
    ],
)
def test_a_handler_of_another_event_guards_an_action_too(name, code):
    assert guards_action(name, code)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("onclick", "openTab(event, 'a')"),
        ("onclick", "event.preventDefault(); go()"),
        ("onsubmit", "disable(this)"),
        ("onsubmit", "prevent()"),
        ("onkeypress", "return isNumber(event)"),
        ("onchange", "if (confirm('Sure?')) this.form.submit()"),
        ("onload", "return init()"),
    ],
)
def test_where_nothing_happens_without_the_handler_it_guards_nothing(name, code):
    assert not guards_action(name, code)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.innerHTML = '<b onclick=\"go()\">'", [("onclick", "go()")]),
        ("document.write(\"<a href=x ONCLICK='go()'>\")", [("onclick", "go()")]),
        ('write("<b onclick=\\"go()\\">")', [("onclick", "go()")]),
        ("`<b id=1\n  onclick='go()'><i onload='a'>`", [("onclick", "go()"), ("onload", "a")]),
        ("'<b onclick=\"go(' + number + ')\">'", [("onclick", "go(' + number + ')")]),
        ("onclick='go()' id=a", [("onclick", "go()")]),
        ("a.onclick = 'go()'", []),
        ("var onclick = 'go()'", []),
        ("'<b onfoo=\"go()\">'", []),
        ("'<b onclick>' + 'x=\"a\"'", []),
        ("if (a < b && onclick == 'go()') {}", []),
    ],
)
def test_handlers_in_html_that_code_writes_are_found(text, found):
    assert [(name, code) for _, name, code in find_written(text)] == found


@pytest.mark.parametrize(
    ("name", "value", "library"),
    [
        ("x-data", "{}", "Alpine"),
        ("x-on:click", "go()", "Alpine"),
        ("hx-on:click", "go()", "htmx"),
        ("hx-on::before-request", "go()", "htmx"),
        ("data-hx-on-click", "go()", "htmx"),
        ("hx-on", "click: go()", "htmx"),
        ("hx-vals", "js:{a: b()}", "htmx"),
        ("hx-headers", " javascript:{a: b()}", "htmx"),
        ("hx-vars", "a:b()", "htmx"),
        ("hx-trigger", "click[ctrlKey]", "htmx"),
        ("v-if", "a", "Vue"),
        ("v-on:click", "go()", "Vue"),
        ("hx-vals", '{"a": "js:"}', ""),
        ("hx-trigger", "click delay:1s", ""),
        ("hx-get", "/a", ""),
        ("x-cloak", "", ""),
        ("v-cloak", "", ""),
        ("onclick", "go()", ""),
        ("data-on", "x", ""),
    ],
)
def test_attributes_that_become_code_are_known(name, value, library):
    assert find_code_maker(name, value) == library
