import pytest

from om_plugins.csp.html.attributes import find_attribute, put_nonce, read_value

WITHOUT = [
    "", " src=a", " data-nonce=x", " title='nonce=1'", " noncex=1", " x-nonce", " src=nonce",
    ' a="b"c', " /", " nonce2", ' title="a nonce = \'1\'"',
]  # fmt: skip


@pytest.mark.parametrize("attributes", WITHOUT)
def test_tag_without_a_nonce_gets_it_first(attributes):
    assert put_nonce(attributes, "N") == f' nonce="N"{attributes}'
    assert put_nonce(attributes, "N", quote="'") == f" nonce='N'{attributes}"


@pytest.mark.parametrize(
    "attributes",
    [" nonce=own src=a", " a nonce='own'", ' NONCE = "own"', '/nonce="own"', ' x="1"nonce=own'],
)
def test_nonce_with_a_value_is_kept_unless_it_is_to_be_replaced(attributes):
    assert put_nonce(attributes, "N") == attributes
    replaced = put_nonce(attributes, "N", replace=True)
    assert 'nonce="N"' in replaced
    assert "own" not in replaced
    assert put_nonce(replaced, "N", replace=True) == replaced


@pytest.mark.parametrize(
    ("attributes", "filled"),
    [
        (" nonce src=a", ' nonce="N" src=a'),
        (" nonce", ' nonce="N"'),
        (" nonce= ", ' nonce="N"'),
        (" nonce=''src=a", ' nonce="N" src=a'),
        (' src=a NONCE="" defer', ' src=a nonce="N" defer'),
        (" nonce='  '", ' nonce="N"'),
        (' nonce=""/', ' nonce="N"/'),
    ],
)
def test_empty_nonce_is_filled(attributes, filled):
    assert put_nonce(attributes, "N") == filled


@pytest.mark.parametrize(
    ("attributes", "value"),
    [
        (" src=a/b.js", "a/b.js"), (' SRC="a b"', "a b"), (" data-src=x src='y'", "y"),
        (" src", ""), (' src="open', "open"), (" src=a src=b", "a"),
    ],
)  # fmt: skip
def test_first_attribute_of_a_name_is_found(attributes, value):
    found = find_attribute(attributes, "src")
    assert found is not None
    assert read_value(found) == value
