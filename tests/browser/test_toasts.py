"""The toast element in a real browser, under a strict policy and Trusted Types."""

from __future__ import annotations

import re

import pytest

from tests.patience import wait_until

pytestmark = pytest.mark.browser

SHOWN = "[...document.querySelector('om-toasts').shadowRoot.querySelectorAll('li:not([inert])')]"
TEXTS = f"() => {SHOWN}.map((one) => one.querySelector('.text span').textContent)"
FOCUSED = "document.querySelector('om-toasts').shadowRoot.activeElement?.className"
SAID = """(role) => document.querySelector('om-toasts').shadowRoot
  .querySelector(`.said[role=${role}]`).innerText.trim().split(/\\s*\\n\\s*/)"""
ACTIONS = "[{label: 'Refresh', action: 'refresh'}, {label: 'Later', action: 'dismiss'}]"


def texts(page):
    return page.evaluate(TEXTS)


def until(page, expression):
    """Wait from here: the page's own clock may stand still, and its policy forbids eval."""
    wait_until(lambda: page.evaluate(expression), f"never came true: {expression}")


def say(page, role):
    until(page, f"() => ({SAID})('{role}')[0]")
    return page.evaluate(SAID, role)


def test_each_kind_shows_its_words_icon_and_colour_in_the_top_layer(open_page):
    page = open_page()
    tones = set()
    for kind in ("success", "error", "warning", "info", "progress"):
        page.evaluate(
            "(kind) => { toast[kind]('<b>words</b>', {title: 'A title', key: 'k'}) }", kind
        )
        item = page.locator("om-toasts li")
        assert item.locator("strong").inner_text() == "A title"
        assert item.locator(".text span").inner_text() == "<b>words</b>"
        assert item.locator("svg").first.get_attribute("aria-label")
        tones.add(item.evaluate("(one) => getComputedStyle(one.firstChild).color"))
        assert item.evaluate("(one) => getComputedStyle(one).backdropFilter").startswith("blur")
    assert len(tones) == 4  # progress has the colour of info
    assert page.locator("om-toasts .box").evaluate("(box) => box.matches(':popover-open')")


def test_toast_stays_as_long_as_its_kind_says(open_page):
    page = open_page(clock=True)
    for call, seconds in {
        "toast.success('a')": 4,
        "toast.info('a')": 4,
        "toast.warning('a')": 4,
        "toast.error('a')": 7,
        "toast.info('a'.repeat(121))": 6,
        "toast.info('가'.repeat(61))": 6,
        "toast.info('a', {duration_s: 2})": 2,
        "toast.progress('a').complete('b')": 3,
        "toast.progress('a').fail('b')": 5,
    }.items():
        page.evaluate(f"() => {{ {call} }}")
        page.clock.run_for(int((seconds - 0.6) * 1000))
        assert len(texts(page)) == 1, f"{call} goes too early"
        page.clock.run_for(1200)
        assert texts(page) == [], f"{call} stays too long"


def test_toast_with_something_to_do_or_in_progress_stays(open_page):
    page = open_page(clock=True)
    calls = [
        f"toast.error('a', {{actions: {ACTIONS}}})",
        f"toast.info('b', {{actions: {ACTIONS}}})",
        f"toast.progress('c').fail('c', {{actions: {ACTIONS}}})",
        "toast.progress('d')",
        "toast.info('e', {duration_s: 0})",
    ]
    page.evaluate(f"() => {{ {';'.join(calls)} }}")
    page.clock.run_for(60_000)
    assert texts(page) == list("abcde")


def test_time_stands_still_while_a_toast_is_hovered_or_focused(open_page):
    page = open_page(clock=True)
    page.evaluate("() => { toast.success('a') }")
    page.locator("om-toasts li").hover()
    page.clock.run_for(20_000)
    assert texts(page) == ["a"]
    page.mouse.move(1, 1)
    page.keyboard.press("F6")
    page.clock.run_for(20_000)
    assert texts(page) == ["a"]
    page.keyboard.press("F6")
    page.clock.run_for(5000)
    assert texts(page) == []


def test_time_stands_still_while_the_tab_is_hidden(open_page):
    page = open_page(clock=True)
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => window.away})")
    page.evaluate("() => { toast.success('a'); window.away = true }")
    page.clock.run_for(20_000)
    assert texts(page) == ["a"]
    page.evaluate("window.away = false")
    page.clock.run_for(5000)
    assert texts(page) == []


def test_progress_moves_its_bar_and_completes(open_page):
    page = open_page(clock=True)
    page.evaluate("() => { window.job = toast.progress('Recovering…', {percent: 20}) }")
    bar = page.locator("om-toasts [role=progressbar]")
    assert bar.get_attribute("aria-valuenow") == "20"
    page.evaluate("job.update({percent: 170, message: 'Nearly'})")
    assert bar.get_attribute("aria-valuenow") == "100"
    assert texts(page) == ["Nearly"]
    page.evaluate("job.complete('Done')")
    assert (texts(page), page.locator("om-toasts li").get_attribute("class")) == (
        ["Done"],
        "success",
    )
    page.clock.run_for(4000)
    assert texts(page) == []


def test_closed_progress_stays_closed_until_its_end(open_page):
    page = open_page()
    page.evaluate("() => { window.job = toast.progress('a', {key: 'k'}); job.dismiss() }")
    page.evaluate("() => { job.update({percent: 50}); toast.progress('a', {key: 'k'}) }")
    assert texts(page) == []
    page.evaluate("job.fail('It did not work')")
    assert texts(page) == ["It did not work"]


def test_same_key_replaces_and_same_words_are_counted(open_page):
    page = open_page()
    page.evaluate("() => { toast.info('one', {key: 'k'}); toast.error('two', {key: 'k'}) }")
    assert texts(page) == ["two"]
    page.evaluate("() => { for (let i = 0; i < 3; i++) toast.success('Saved') }")
    assert texts(page) == ["two", "Saved"]
    assert page.locator("om-toasts .count:visible").all_inner_texts() == ["×3"]


def test_more_than_five_wait_and_can_be_seen(open_page):
    page = open_page(clock=True)
    page.evaluate("() => { for (let i = 1; i < 9; i++) toast.info(`m${i}`) }")
    assert texts(page) == ["m1", "m2", "m3", "m4", "m5"]
    more = page.get_by_role("button", name="3 more")
    page.evaluate("document.querySelector('om-toasts').toasts[1].dismiss()")
    page.get_by_role("button", name="2 more").click()
    assert texts(page) == ["m1", "m3", "m4", "m5", "m6", "m7", "m8"]
    assert not more.is_visible()


def test_waiting_toasts_get_their_whole_time_when_their_turn_comes(open_page):
    page = open_page(clock=True)
    page.evaluate("() => { for (let i = 1; i < 7; i++) toast.info(`m${i}`) }")
    page.clock.run_for(4600)
    until(page, f"({TEXTS})().join() === 'm6'")
    page.clock.run_for(1500)  # the real time that a busy machine takes comes on top
    assert texts(page) == ["m6"]


def test_words_are_said_in_live_regions_that_exist_beforehand(open_page):
    page = open_page()
    regions = page.locator("om-toasts .said")
    assert [one.get_attribute("role") for one in regions.all()] == ["status", "alert"]
    page.evaluate("() => { toast.success('Saved'); toast.error('It broke') }")
    assert say(page, "status") == ["Done: Saved"]
    assert say(page, "alert") == ["Error: It broke"]


def test_f6_goes_to_the_newest_toast_and_back(open_page):
    page = open_page()
    page.focus("#field")
    page.evaluate(f"() => {{ toast.info('old'); toast.warning('new', {{actions: {ACTIONS}}}) }}")
    page.keyboard.press("F6")
    assert page.evaluate(FOCUSED) == "warning"
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED) == "close"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert (
        page.evaluate("document.querySelector('om-toasts').shadowRoot.activeElement.innerText")
        == "Later"
    )
    page.keyboard.press("F6")
    assert page.evaluate("document.activeElement.id") == "field"


def test_escape_dismisses_the_focused_or_newest_and_the_focus_returns(open_page):
    page = open_page()
    page.focus("#field")
    page.evaluate("() => { toast.info('old'); toast.error('new') }")
    page.keyboard.press("Escape")
    assert texts(page) == ["old"]
    page.keyboard.press("F6")
    page.keyboard.press("Escape")
    assert texts(page) == []
    assert page.evaluate("document.activeElement.id") == "field"


def test_pressing_a_button_of_a_focused_toast_returns_the_focus(open_page):
    page = open_page()
    page.focus("#field")
    page.evaluate(f"() => {{ toast.error('a', {{actions: {ACTIONS}}}) }}")
    page.keyboard.press("F6")
    page.get_by_role("button", name="Later").focus()
    page.keyboard.press("Enter")
    assert texts(page) == []
    assert page.evaluate("document.activeElement.id") == "field"


def test_swipe_closes_a_toast_and_half_a_swipe_does_not(open_page):
    page = open_page()
    page.evaluate("() => { window.last = toast.progress('a') }")
    swipe = f"""(distance) => {{
      const item = {SHOWN}[0];
      const touch = (kind, clientX) => item.dispatchEvent(
        new PointerEvent(kind, {{ pointerType: "touch", clientX, bubbles: true }}));
      touch("pointerdown", 100);
      touch("pointermove", 100 + distance);
      touch("pointerup", 100 + distance);
    }}"""
    page.evaluate(swipe, 40)
    assert texts(page) == ["a"]
    page.evaluate(swipe, -90)
    assert texts(page) == []
    page.evaluate("last.complete('b')")
    assert texts(page) == ["b"]
    assert page.locator("om-toasts li").evaluate("(one) => one.style.translate") == ""


def test_toasts_move_into_an_open_modal_dialog_and_back(open_page):
    page = open_page()
    page.evaluate(f"() => {{ toast.error('a', {{actions: {ACTIONS}}}); dialog.showModal() }}")
    parent = "document.querySelector('om-toasts').parentNode.id || 'page'"
    until(page, f"{parent} === 'dialog'")
    page.evaluate("inner.showModal()")
    until(page, f"{parent} === 'inner'")
    page.keyboard.press("F6")
    assert page.evaluate(FOCUSED) == "error"  # within reach, where the page is inert
    page.keyboard.press("F6")
    page.evaluate("inner.close()")
    until(page, f"{parent} === 'dialog'")
    page.evaluate("dialog.remove()")
    until(page, f"{parent} === 'page'")
    page.get_by_role("button", name="Later").click()
    assert texts(page) == []


def test_escape_closes_the_page_s_dialog_before_a_toast_outside_the_focus(open_page):
    page = open_page()
    page.evaluate("() => { dialog.showModal(); toast.error('a') }")
    page.focus("#inside")
    page.keyboard.press("Escape")
    until(page, "!dialog.open")
    assert texts(page) == ["a"]
    page.evaluate("dialog.showModal()")
    page.keyboard.press("F6")
    page.keyboard.press("Escape")
    assert texts(page) == []
    assert page.evaluate("dialog.open")


def test_nothing_moves_for_those_who_asked_for_reduced_motion(open_page):
    frames = """() => {
      const toasts = document.querySelector('om-toasts').shadowRoot;
      toast.progress('a');
      const frames = toasts.getAnimations().flatMap((one) => one.effect.getKeyframes());
      return frames.map((frame) => frame.translate);
    }"""
    assert "0px 32px" in str(open_page().evaluate(frames))
    still = open_page(reduced_motion="reduce").evaluate(frames)
    assert [frame for frame in still if frame] == []


SURFACE = f"() => getComputedStyle({SHOWN}[0]).backgroundColor"


def lightness(page):
    """Of the toast's surface, from 0 to 1."""
    colour = page.evaluate(SURFACE)
    return float(re.findall(r"[\d.]+", colour.removeprefix("color(srgb "))[0])


def test_dark_follows_the_page_s_colour_scheme_or_else_its_background(open_page):
    page = open_page(color_scheme="dark")
    page.evaluate("document.documentElement.style.colorScheme = 'light dark'; toast.info('a')")
    assert lightness(page) < 0.3
    page.evaluate("document.documentElement.style.colorScheme = 'light'; toast.info('b')")
    assert lightness(page) > 0.9
    page.evaluate("document.documentElement.style.colorScheme = ''; toast.info('c')")
    assert lightness(page) > 0.9
    page.evaluate("document.body.style.background = '#101418'; toast.info('d')")
    assert lightness(page) < 0.3


def test_at_360_pixels_toasts_fill_the_bottom(open_page):
    page = open_page(viewport={"width": 360, "height": 640}, reduced_motion="reduce")
    page.evaluate("() => { for (let i = 1; i < 6; i++) toast.info('m'.repeat(i)) }")
    boxes = [one.bounding_box() for one in page.locator("om-toasts li").all()]
    assert len(boxes) == 3
    assert {(box["x"], box["width"]) for box in boxes} == {(12, 336)}
    assert boxes[-1]["y"] + boxes[-1]["height"] == pytest.approx(628, abs=1)


def test_toasts_stand_at_the_end_of_the_line(open_page):
    page = open_page(viewport={"width": 1600, "height": 900}, reduced_motion="reduce")
    page.evaluate("() => { toast.info('a') }")
    box = page.locator("om-toasts li").bounding_box()
    assert 1600 - box["x"] - box["width"] == pytest.approx(24, abs=1)
    page.evaluate("document.documentElement.dir = 'rtl'")
    assert page.locator("om-toasts li").bounding_box()["x"] == pytest.approx(24, abs=1)


def test_page_styles_do_not_reach_into_a_toast(open_page):
    page = open_page()
    page.evaluate("""() => {
      const sheet = new CSSStyleSheet();
      sheet.replaceSync("* { margin: 0; color: red !important; font-size: 40px; display: block }");
      document.adoptedStyleSheets = [sheet];
      toast.info('a');
    }""")
    style = page.evaluate(
        f"(() => {{ const s = getComputedStyle({SHOWN}[0]); return [s.color, s.fontSize] }})()"
    )
    assert style[0] != "rgb(255, 0, 0)"
    assert float(style[1].removesuffix("px")) < 16


def test_link_action_stays_on_this_site(open_page):
    page = open_page()
    link = "() => { toast.info('a', {actions: [{label: 'Go', action: 'link', value: %r}]}) }"
    for elsewhere in ("https://example.org/", "//example.org/", "javascript:alert(1)"):
        page.evaluate(link % elsewhere)
        page.get_by_role("button", name="Go").click()
        until(page, "!document.querySelector('om-toasts').shadowRoot.querySelector('li')")
        assert page.url.endswith("/page")
    page.evaluate(link % "/other?x=1")
    page.get_by_role("button", name="Go").click()
    page.wait_for_url("**/other?x=1")


def test_refresh_action_loads_the_page_again(open_page):
    page = open_page()
    page.evaluate(f"() => {{ window.before = true; toast.error('a', {{actions: {ACTIONS}}}) }}")
    with page.expect_navigation():
        page.get_by_role("button", name="Refresh").click()
    assert page.evaluate("window.before === undefined")


def test_listener_may_take_an_action_over(open_page):
    page = open_page()
    page.evaluate(f"""() => {{
      addEventListener("om-action", (event) => {{
        event.preventDefault();
        window.taken = event.detail.action;
      }});
      toast.error('a', {{actions: {ACTIONS}}});
    }}""")
    page.get_by_role("button", name="Refresh").click()
    assert page.evaluate("taken") == "refresh"
    assert texts(page) == ["a"]


@pytest.mark.parametrize(
    ("language", "close", "more"), [("en", "Close", "1 more"), ("ko-KR", "닫기", "1개 더 보기")]
)
def test_the_element_s_own_words_are_in_the_page_s_language(open_page, language, close, more):
    page = open_page(f"?lang={language}")
    page.evaluate("() => { for (let i = 1; i < 7; i++) toast.info(`m${i}`) }")
    assert page.get_by_role("button", name=close, exact=True).count() == 5
    assert page.get_by_role("button", name=more).is_visible()


def test_toast_of_om_js_is_the_same_and_loads_the_element_when_used(open_page):
    page = open_page()
    page.evaluate("""async () => {
      const { toast } = await import("/_om/static/om.js");
      window.job = toast.progress('a', {percent: 1});
      job.update({percent: 2});
      job.complete('b');
    }""")
    until(page, f"({TEXTS})().join() === 'b'")
    assert page.locator("om-toasts").count() == 1
