import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from om_plugins.csp.html import document
from om_plugins.csp.html.document import NonceWriter, add_nonces

PAGES = [
    ("<script>a</script>", '<script nonce="N">a</script>'),
    ("<SCRIPT src=a></SCRIPT>", '<SCRIPT nonce="N" src=a></SCRIPT>'),
    ("<link rel=icon href=x>", "<link rel=icon href=x>"),
    ("<link href=y rel='stylesheet'>", "<link nonce='N' href=y rel='stylesheet'>"),
    ("<link rel='preload stylesheet'/>", "<link nonce='N' rel='preload stylesheet'/>"),
    ("<style media='a > b'>x</style>", "<style nonce='N' media='a > b'>x</style>"),
    # a nonce that is there
    ("<style nonce=''>x</style>", "<style nonce='N'>x</style>"),
    ("<style nonce>x</style>", '<style nonce="N">x</style>'),
    ("<script nonce=old src=b></script>", '<script nonce="N" src=b></script>'),
    ('<script NONCE="old"src=b></script>', '<script nonce="N" src=b></script>'),
    ("<script nonce='N'></script>", "<script nonce='N'></script>"),
    ("<script data-nonce=1></script>", '<script nonce="N" data-nonce=1></script>'),
    # what only looks like a tag
    ("<p title='<script>'>", "<p title='<script>'>"),
    ("<!-- <script> -- > --!><style></style>", '<!-- <script> -- > --!><style nonce="N"></style>'),
    ("<!--><style></style>", '<!--><style nonce="N"></style>'),
    ("<textarea><script></textarea>", "<textarea><script></textarea>"),
    ("<title><style></title>", "<title><style></title>"),
    ("<my-script></my-script><scripty>", "<my-script></my-script><scripty>"),
    ("a < script> b<", "a < script> b<"),
    # in a script; the last ones are the states "escaped" and "double escaped"
    ("<script>'<script>'</script>", "<script nonce=\"N\">'<script>'</script>"),
    ("<script>x = \"<style>\"</script>", '<script nonce="N">x = "<style>"</script>'),
    ("<script><!-- a </script><style></style>",
     '<script nonce="N"><!-- a </script><style nonce="N"></style>'),
    ("<script><!--<script>1</script><style>--></script><style></style>",
     '<script nonce="N"><!--<script>1</script><style>--></script><style nonce="N"></style>'),
    ("<script><!--><script></script><style></style>",
     '<script nonce="N"><!--><script></script><style nonce="N"></style>'),
    # a page that ends too early
    ("<script>a", '<script nonce="N">a'),
    ("<script src='a", "<script src='a"),
    ("<p>a</scri", "<p>a</scri"),
    # no tag of a template has these
    ("\"<script src='\\a' x=\\b></script>", "\"<script nonce='N' src='\\a' x=\\b></script>"),
    ("<svg><style></style><script/><style></style></svg>",
     '<svg><style nonce="N"></style><script nonce="N"/><style nonce="N"></style></svg>'),
    # a vertical tab is a part of a name
    ("<script\v>a</script\v></script>", "<script\v>a</script\v></script>"),
    ("<script>a</script\v><style></script>", '<script nonce="N">a</script\v><style></script>'),
    ("<textarea></textarea\v><style></style>", "<textarea></textarea\v><style></style>"),
    ("<style a\v=b\vc></style>", '<style nonce="N" a\v=b\vc></style>'),
    ("<style a=\xa0></style>", '<style nonce="N" a=\xa0></style>'),
]  # fmt: skip


@pytest.mark.parametrize(("page", "expected"), PAGES, ids=[one[0] for one in PAGES])
def test_literal_tags_get_a_nonce_however_the_page_is_cut(page, expected):
    assert add_nonces(page, lambda: "N") == expected
    cut = random.Random(1)
    for size in (1, 2, 5):
        for _ in range(20):
            writer = NonceWriter(lambda: "N")
            out, at = [], 0
            while at < len(page):
                end = at + cut.randint(1, size)
                out.append(writer.feed(page[at:end]))
                at = end
            assert "".join([*out, writer.end()]) == expected


@given(st.lists(st.sampled_from(
    ["<script", "</script", ">", " ", "'", '"', "<!--", "-->", "<", "=", "nonce", "a", "<style>",
     "</style>", "<link rel=stylesheet", "\\", "/", "<textarea>", "</textarea>"]
), max_size=14))  # fmt: skip
def test_a_page_in_pieces_is_the_whole_page(pieces):
    writer = NonceWriter(lambda: "N")
    streamed = "".join([*map(writer.feed, pieces), writer.end()])
    assert streamed == add_nonces("".join(pieces), lambda: "N")


def test_page_without_tags_asks_for_no_nonce():
    def ask():
        raise AssertionError

    assert add_nonces("<p>a</p><link rel=icon>", ask) == "<p>a</p><link rel=icon>"


def test_one_nonce_is_asked_for_a_page_and_none_leaves_it_as_it_is():
    asked = []
    page = "<script>a</script><style nonce=old></style>"
    assert add_nonces(page, lambda: asked.append(1)) == page
    writer = NonceWriter(lambda: asked.append(1))
    assert [writer.feed("<script>"), writer.feed("<"), writer.feed("script>")] == [
        "<script>", "<", "script>"
    ]  # fmt: skip
    assert len(asked) == 2


def test_a_tag_without_an_end_is_held_back_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(document, "MAX_TAG_CHARS", 100)
    writer = NonceWriter(lambda: "N")
    assert writer.feed("<p><script ") == "<p><script"
    assert writer.feed("a" * 90) == ""
    assert writer.feed("b" * 20 + "<") == " " + "a" * 90 + "b" * 20
    assert writer.feed("></script><style>") == '<></script><style nonce="N">'
    assert writer.end() == ""


def test_text_flows_through_and_only_what_may_be_a_tag_waits():
    writer = NonceWriter(lambda: "N")
    assert writer.feed("<p>one</p>") == "<p>one</p>"
    assert writer.feed("two <scr") == "two "
    assert writer.feed("ipt>3") == '<script nonce="N">3'
    assert writer.feed("4</scri") == "4"
    assert writer.feed("pt>-") == "</script>"
    assert writer.end() == "-"


def test_xhtml_has_scripts_without_end_tags():
    page = "<script src='a'/><style>b</style>"
    assert add_nonces(page, lambda: "N") == "<script nonce='N' src='a'/><style>b</style>"
    writer = NonceWriter(lambda: "N", xml=True)
    assert writer.feed(page) + writer.end() == (
        "<script nonce='N' src='a'/><style nonce=\"N\">b</style>"
    )
