import pytest

from om_plugins.csp.html.scan import Mode, Scanner


def found(*pieces, gap_mentions_nonce=False):
    """The names of the tags that would get a nonce; between two pieces there is a gap."""
    scanner = Scanner()
    for number, piece in enumerate(pieces):
        if number:
            scanner.gap(gap_mentions_nonce)
        scanner.feed(piece, number)
    return [t.name for t in scanner.tags if t.found and not t.has_nonce and not t.skipped]


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
        (["<script nonce=x></script><style NONCE></style>"], []),
        (["<script data-nonce=x></script>"], ["script"]),
        (["<script data-x='nonce'></script>"], ["script"]),
        (["<script src='a'nonce='b'></script>"], []),
        (["<script", "></script>"], ["script"]),
        (["<script src=", "></script>"], ["script"]),
        (["<script src='", "' async></script>"], ["script"]),
        (["<script src='", "' nonce='", "'></script>"], []),
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


def test_gap_that_may_be_a_nonce_counts_as_one_between_attributes_only():
    assert found("<script ", "></script>", gap_mentions_nonce=True) == []
    assert found("<script src='", "'></script>", gap_mentions_nonce=True) == ["script"]


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
