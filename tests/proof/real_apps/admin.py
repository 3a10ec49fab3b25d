"""Flask-Admin over a database: forms in dialogs, inline editing, actions, deletion that asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask
from flask_admin import Admin
from flask_admin.contrib.sqla import ModelView
from flask_babel import Babel
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.pool import StaticPool

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = ("/admin/", "/admin/book/", "/admin/book/new/", "/admin/book/edit/?id=1")
FILES = (
    "/admin/static/admin/js/helpers.js",
    "/admin/static/bootstrap/bootstrap4/css/bootstrap.css",
)
SETTINGS = {}
RISK = "high"  # its handlers have texts of translations in them


def build(app: Flask, add_line: Callable[[], object], *, line_first: bool) -> None:
    app.config.update(
        SQLALCHEMY_DATABASE_URI="sqlite://",
        SQLALCHEMY_ENGINE_OPTIONS={
            "poolclass": StaticPool,
            "connect_args": {"check_same_thread": False},
        },
    )
    if line_first:
        add_line()
    db = SQLAlchemy(app)
    Babel(app)
    admin = Admin(app, name="Library")
    if not line_first:
        add_line()

    class Book(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        title = db.Column(db.String(80))
        printed = db.Column(db.Date)

    class Books(ModelView):
        create_modal = edit_modal = can_view_details = True
        column_editable_list = ("title",)
        column_filters = ("title",)
        column_searchable_list = ("title",)

    admin.add_view(Books(Book, db))
    with app.app_context():
        db.create_all()
        db.session.add_all(Book(title=title) for title in ("Middlemarch", "Emma", "Persuasion"))
        db.session.commit()


def visit(tab, url):
    """What a librarian sees."""
    seen = {}
    rows = tab.locator("td.col-title")
    tab.goto(f"{url}/admin/book/")
    seen["titles"] = rows.all_inner_texts()
    seen["bar"] = tab.locator("nav").first.evaluate("e => getComputedStyle(e).display")

    tab.get_by_role("link", name="Create", exact=True).first.click()  # bs4_modal.js
    dialog = tab.locator("#fa_modal_window")
    dialog.locator("input[name=title]").fill("Villette")
    dialog.locator("input[name=printed]").click()  # daterangepicker
    tab.locator(".daterangepicker td.available:not(.off)").first.click()
    seen["day"] = dialog.locator("input[name=printed]").input_value()[-2:]
    with tab.expect_navigation():
        dialog.locator("input[value=Save]").click()
    seen["created"] = rows.all_inner_texts()

    rows.first.locator("a").click()  # x-editable
    tab.locator(".editable-input input").fill("Shirley")
    tab.locator(".editable-submit").click()
    rows.first.get_by_text("Shirley").wait_for()
    seen["edited"] = rows.first.inner_text()

    tab.get_by_text("Add Filter").click()
    tab.locator("a.filter", has_text="Title").first.click()
    tab.locator(".filters input[type=text]").first.wait_for()
    seen["address with a filter"] = tab.url.removeprefix(url)

    questions = []
    answers = iter((False, True, True))

    def answer(dialog):
        questions.append(dialog.message)
        dialog.accept() if next(answers) else dialog.dismiss()

    tab.on("dialog", answer)
    tab.goto(f"{url}/admin/book/")
    delete = tab.locator("form.icon button").first
    delete.click()
    seen["after no"] = rows.all_inner_texts()
    with tab.expect_navigation():
        delete.click()
    seen["after yes"] = rows.all_inner_texts()
    tab.locator("input[name=rowid]").first.check()
    tab.get_by_text("With selected").click()
    with tab.expect_navigation():
        tab.locator("a.dropdown-item", has_text="Delete").click()
    seen["after the action"] = rows.all_inner_texts()
    seen["asked"] = questions
    return seen
