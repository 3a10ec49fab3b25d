"""Flask-Login with a login form of Flask-WTF, and a page that only a user sees."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flask import Flask, flash, redirect, render_template_string, request, url_for
from flask_login import LoginManager, UserMixin, login_required, login_user, logout_user
from flask_wtf import FlaskForm
from wtforms import BooleanField, PasswordField, StringField
from wtforms.validators import DataRequired

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = ("/login", "/private", "/")
FILES = ()
SETTINGS = {}
RISK = "none"

LAYOUT = """<!doctype html><title>Members</title>
<style>.wrong { color: rgb(200, 0, 0) }</style>
{% for message in get_flashed_messages() %}<p class="message">{{ message }}</p>{% endfor %}
<p id="who">{{ current_user.id if current_user.is_authenticated else "nobody" }}</p>
"""
LOGIN = (
    LAYOUT
    + """<form method="post">{{ form.hidden_tag() }}
{{ form.name }}{{ form.password }}{{ form.remember }}
<button>Sign in</button>{% for error in form.password.errors %}<p class="wrong">{{ error }}</p>
{% endfor %}</form>
<script>
document.querySelector("[name=name]").focus();
const form = document.querySelector("form");
form.addEventListener("submit", () => sessionStorage.setItem("sent", "yes"));
</script>"""
)
PRIVATE = (
    LAYOUT
    + """<p id="sent"></p><a href="{{ url_for('sign_out') }}">Sign out</a>
<script>document.getElementById("sent").textContent = sessionStorage.getItem("sent");</script>"""
)


class Member(UserMixin):
    def __init__(self, name):
        self.id = name


class SignIn(FlaskForm):
    name = StringField(validators=[DataRequired()])
    password = PasswordField(validators=[DataRequired()])
    remember = BooleanField()


def build(app: Flask, add_line: Callable[[], object], *, line_first: bool) -> None:
    if line_first:
        add_line()
    manager = LoginManager(app)
    if not line_first:
        add_line()
    manager.login_view = "sign_in"
    manager.user_loader(Member)

    @app.route("/login", methods=["GET", "POST"])
    def sign_in():
        form = SignIn()
        if form.validate_on_submit():
            if form.password.data == "right":
                login_user(Member(form.name.data), remember=form.remember.data)
                return redirect(request.args.get("next") or url_for("private"))
            form.password.errors = ["not this one"]
        return render_template_string(LOGIN, form=form)

    @app.get("/private")
    @login_required
    def private():
        return render_template_string(PRIVATE)

    @app.get("/")
    def home():
        return render_template_string(LAYOUT)

    @app.get("/logout")
    @login_required
    def sign_out():
        logout_user()
        flash("until then")
        return redirect(url_for("home"))


def scrub(page: str) -> str:
    """The token of a form is another one each time."""
    return re.sub(r'(name="csrf_token"[^>]* value=")[^"]+', r"\1", page)


def visit(tab, url):
    """What a member sees."""
    seen = {}
    tab.goto(f"{url}/private")
    seen["sent to"] = tab.url.removeprefix(url)
    seen["told"] = tab.locator(".message").all_inner_texts()
    seen["focus"] = tab.evaluate("document.activeElement.name")
    tab.fill("[name=name]", "ada")
    tab.fill("[name=password]", "wrong")
    tab.click("button")
    seen["wrong"] = tab.locator(".wrong").inner_text()
    seen["colour"] = tab.locator(".wrong").evaluate("e => getComputedStyle(e).color")
    tab.fill("[name=password]", "right")
    tab.check("[name=remember]")
    tab.click("button")
    tab.wait_for_url("**/private")
    seen["who"] = tab.locator("#who").inner_text()
    seen["script"] = tab.locator("#sent").inner_text()
    seen["cookies"] = sorted(
        (cookie["name"], cookie["path"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"])
        for cookie in tab.context.cookies()
    )
    tab.context.clear_cookies(name="session")
    tab.reload()
    seen["remembered"] = tab.locator("#who").inner_text()
    tab.click("a")
    tab.wait_for_url(f"{url}/")
    seen["after"] = (tab.locator("#who").inner_text(), tab.locator(".message").all_inner_texts())
    return seen
