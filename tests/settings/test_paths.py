import pytest

from om_plugins.settings.paths import PathPatterns


@pytest.mark.parametrize(
    ("path", "matches"),
    [
        ("/up", True), ("/up/", False), ("/upper", False), ("/status", False), ("/status/", True),
        ("/status/a/b", True), ("/caf\u00c3\u00a9", True), ("/", False), ("", False),
    ],
)  # fmt: skip
def test_a_pattern_is_a_path_or_all_that_begin_so(path, matches):
    assert PathPatterns(["/up", "/status/*", "/café"]).match(path) is matches


def test_all_paths_and_none():
    assert PathPatterns(["/*"]).match("/a")
    assert not PathPatterns([]).match("/a")
