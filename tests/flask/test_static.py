import base64
import hashlib
import os
import re

import pytest
from flask import Blueprint, Flask, render_template_string

from om_plugins import OpenManager


@pytest.fixture
def app(tmp_path):
    for name, text in (("static/js/app.js", "start()"), ("static/a.css", "p{}"), ("b/b.js", "b()")):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    app = Flask("shop", root_path=str(tmp_path))
    app.config.update(TESTING=True, OM_CSP_MODE="enforce")
    admin = Blueprint("admin", "admin", static_folder=str(tmp_path / "b"), url_prefix="/admin")
    app.register_blueprint(admin)
    OpenManager(app)
    return app


def rendered(app, source, url="/"):
    def view():
        return render_template_string(source)

    app.view_functions["view"] = view
    with app.test_request_context(url):
        return view()


def sri(data):
    return "sha384-" + base64.b64encode(hashlib.sha384(data).digest()).decode()


def test_a_script_s_tag_has_its_hash_its_integrity_and_the_nonce(app):
    html = rendered(app, "{{ om_static('js/app.js', type='module', defer=True, id=None) }}")
    found = re.fullmatch(
        r'<script src="/static/js/app\.js\?v=([\w-]{12})" integrity="([^"]+)" '
        r'nonce="[0-9a-f]{32}" type="module" defer></script>',
        html,
    )
    assert found[2] == sri(b"start()")
    assert sri(b"start()")[7:].translate(str.maketrans("+/", "-_")).startswith(found[1])


def test_a_style_sheet_gets_a_link(app):
    html = rendered(app, "{{ om_static('a.css', media='print') }}")
    assert html.startswith('<link rel="stylesheet" href="/static/a.css?v=')
    assert 'media="print">' in html
    assert "nonce=" in html


def test_with_rel_it_is_a_link(app):
    html = rendered(app, "{{ om_static('js/app.js', rel='preload', **{'as': 'script'}) }}")
    assert html.startswith('<link href="/static/js/app.js?v=')
    assert 'rel="preload" as="script">' in html
    sheet = rendered(app, "{{ om_static('a.css', rel='preload', **{'as': 'style'}) }}")
    assert sheet.count("rel=") == 1


def test_a_picture_has_no_tag_but_an_address(app, tmp_path):
    (tmp_path / "static/a.png").write_bytes(b"png")
    assert rendered(app, "{{ om_static('a.png').url }}").startswith("/static/a.png?v=")
    with pytest.raises(ValueError, match=r"om_static\('a.png'\) writes the tags of scripts"):
        rendered(app, "{{ om_static('a.png') }}")


def test_where_hashes_are_listed_a_page_of_own_files_has_no_nonce(app):
    app.config["OM_CSP_PRESET"] = "hash"
    app.add_url_rule(
        "/", view_func=lambda: render_template_string("{{ om_head() }}{{ om_static('a.css') }}")
    )
    first, second = (app.test_client().get("/") for _ in range(2))
    assert first.data == second.data
    assert b"nonce" not in first.data
    assert "nonce" not in first.headers["Content-Security-Policy"]
    assert "Cache-Control" not in first.headers


def test_where_hashes_are_those_of_attributes_alone_a_tag_has_its_nonce(app):
    app.config["OM_CSP_HASH_ATTRIBUTES"] = True
    app.add_url_rule(
        "/", view_func=lambda: render_template_string("{{ om_head() }}{{ om_static('a.css') }}")
    )
    assert app.test_client().get("/").data.count(b"nonce=") == 2


def test_address_and_integrity_can_be_had_alone(app):
    parts = "{{ om_static('a.css').url }} {{ om_static('a.css').integrity }}"
    url, integrity = rendered(app, parts).split()
    assert url.startswith("/static/a.css?v=")
    assert integrity == sri(b"p{}")


def test_the_address_works_and_a_changed_file_is_another_one(app, tmp_path):
    first = rendered(app, "{{ om_static('a.css').url }}")
    with app.test_client().get(first) as response:
        assert response.data == b"p{}"
    file = tmp_path / "static/a.css"
    file.write_text("q{}")
    os.utime(file, (1, 1))
    assert rendered(app, "{{ om_static('a.css').url }}") != first


def test_a_blueprint_s_file(app):
    html = rendered(app, "{{ om_static('b.js', endpoint='admin.static').integrity }}")
    assert html == sri(b"b()")


def test_another_host_s_file_is_asked_for_without_cookies(app):
    app.config["SERVER_NAME"] = "cdn.example"
    with app.app_context():  # as in a mail: no request, so no nonce and a whole address
        html = render_template_string("{{ om_static('a.css') }}")
    assert 'href="http://cdn.example/static/a.css?v=' in html
    assert html.endswith(' crossorigin="anonymous">')


@pytest.mark.parametrize("name", ["none.js", "../secret", "js"])
def test_a_file_that_is_not_there_is_named(app, name):
    with pytest.raises(FileNotFoundError, match=re.escape(f"om_static({name!r})")):
        rendered(app, "{{ om_static(name) }}".replace("name", repr(name)))


def test_attributes_are_escaped(app):
    html = rendered(app, "{{ om_static('a.css', title='\"><script>') }}")
    assert 'title="&#34;&gt;&lt;script&gt;"' in html
