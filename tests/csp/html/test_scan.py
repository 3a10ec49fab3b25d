import pytest

from om_plugins.csp.html.scan import Scanner
from om_plugins.csp.html.state import Mode


def scanned(*pieces, **gap):
    """The tags that would get a nonce; between two pieces there is a gap."""
    scanner = Scanner()
    for number, piece in enumerate(pieces):
        if number:
            scanner.gap(**gap)
        scanner.feed(piece, number)
    return [t for t in scanner.tags if t.found and not t.has_nonce and not t.skipped]


def found(*pieces, **gap):
    """Their names."""
    return [tag.name for tag in scanned(*pieces, **gap)]


@pytest.mark.parametrize(
    ("pieces", "names"),
    [
        (["<script>1</script>"], ["script"]),
        (["<SCRIPT\n>1</Script >"], ["script"]),
        (["<script>1"], []),
        (["<script>'<script>'</script>"], ["script"]),
        (["<style>a>b{}</style><style></style>"], ["style", "style"]),
        (["<scripts></scripts>"], []),
        (["<link rel=stylesheet>"], ["link"]),
        (["<link rel='alternate StyleSheet'>"], ["link"]),
        (['<link href="a" rel = "preload"/>'], ["link"]),
        (["<link rel=modulepreload>"], ["link"]),
        (["<link rel=icon><link><link title=stylesheet>"], []),
        (["<!-- <script></script> -->"], []),
        (["<!--><script></script>"], ["script"]),
        (["<!-- --!><script></script>"], ["script"]),
        (["<!doctype html><script></script>"], ["script"]),
        (["<?php <script></script> ?>"], []),
        (["<textarea><script></script></textarea><style></style>"], ["style"]),
        (["<title><style></style></title>"], []),
        (["<p title='<script></script>'>"], []),
        (['<p title="<script></script>">'], []),
        (["<p title=<script>1</script>"], []),
        (["<script nonce=x></script><style NONCE></style>"], ["style"]),
        (["<script nonce=''></script><script nonce=' '></script>"], ["script", "script"]),
        (["<script NONCE = 'x'></script>"], []),
        (["<script data-nonce=x></script>"], ["script"]),
        (["<script data-x='nonce'></script>"], ["script"]),
        (["<script src='a'nonce='b'></script>"], []),
        (["<script", "></script>"], ["script"]),
        (["<script src=", "></script>"], ["script"]),
        (["<script src='", "' async></script>"], ["script"]),
        (["<script src='", "' nonce='", "'></script>"], ["script"]),
        (["<script nonce='a", "'></script>"], ["script"]),
        (["<script ", "nonce=x></script>"], []),
        (["<script data-", "nonce=x></script>"], ["script"]),
        (["<link rel='", "'>"], []),
        (["<link rel='pre", "load'>"], []),
        (["<link rel='", " stylesheet'>"], ["link"]),
        (["<p class=", "><script></script>"], ["script"]),
        (["<", " title='<script></script>'>"], []),
        (["</", " ><script></script>"], ["script"]),
        (["a < b <script></script>"], ["script"]),
        (["<svg><script/><style/></svg><script></script>"], ["script", "style", "script"]),
        (['<svg / class="a"><script/></svg>'], ["script"]),
        (["<p class='a' title='<script>' hidden><script></script>"], ["script"]),
        (["<script/>1</script>"], ["script"]),
        (['"<script src=\\"a\\"></script>"'], []),
    ],
    ids=repr,
)
def test_tags_that_should_have_a_nonce_are_found(pieces, names):
    assert found(*pieces) == names


@pytest.mark.parametrize(
    ("pieces", "open_"),
    [
        (["<script ", "></script>"], True),
        (["<script", "></script>"], True),
        (["<script src=a ", " defer></script>"], True),
        (["<script src ", "></script>"], True),
        (["<script data-", "=1></script>"], True),
        (["<script nonce='", "'></script>"], True),
        (["<script nonce=", "></script>"], True),
        (["<script nonce=''></script>"], True),
        (["<script nonce></script>"], True),
        (["<script src='", "'></script>"], False),
        (["<script src=", "></script>"], False),
        (["<script src=a", "b></script>"], False),
        (["<script>", "</script>"], False),
        (["<script></script>", ""], False),
        (["<p ", "><script></script>"], False),
    ],
    ids=repr,
)
def test_tag_is_open_when_only_what_is_put_out_tells_whether_it_has_a_nonce(pieces, open_):
    (tag,) = scanned(*pieces)
    assert (tag.open, tag.mentions_nonce, tag.apart) == (open_, False, True)
    (tag,) = scanned(*pieces, mentions_nonce=True)
    assert not tag.mentions_nonce or tag.open


def test_gap_that_puts_out_nothing_leaves_the_tag_closed():
    (tag,) = scanned("<script ", "></script>", prints=False)
    assert not tag.open


def test_nonce_of_the_response_is_one_where_it_is_the_whole_value():
    def nonced(*pieces):
        return found(*pieces, is_nonce=True) == []

    assert nonced("<script nonce='", "'></script>")
    assert nonced('<script NONCE="', '"></script>')
    assert nonced("<script nonce=", "></script>")
    assert not nonced("<script ", "></script>")
    assert not nonced("<script data-nonce='", "'></script>")
    assert not nonced("<script nonce='", "", "'></script>")


def test_tag_that_something_outlasts_is_not_apart():
    (tag,) = scanned("<script ", "></script>", lasts=True)
    assert not tag.apart
    (tag,) = scanned("<script>", "</script>", lasts=True)
    assert not tag.apart


def test_place_is_right_after_the_name():
    scanner = Scanner()
    scanner.feed("ab<script defer></script>", 7)
    assert [(tag.piece, tag.offset) for tag in scanner.tags] == [(7, 9)]


def test_saved_state_is_not_changed_by_what_follows():
    scanner = Scanner()
    before = scanner.save()
    scanner.feed("<script>", 0)
    assert before.mode is Mode.TEXT
    assert scanner.state.mode is Mode.RAW


def test_attributes_for_a_policy_are_found_among_others():
    scanner = Scanner()
    scanner.feed("<p class='a' onclick=\"go()\" id='b' STYLE='c' data-on='d' online='e'>", 0)
    assert [(one.directive, one.value) for one in scanner.inline] == [
        ("script-src-attr", "go()"),
        ("style-src-attr", "c"),
        ("script-src-attr", "e"),
    ]
