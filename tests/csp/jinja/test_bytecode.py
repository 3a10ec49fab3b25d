import pytest
from jinja2 import DictLoader, Environment, FileSystemBytecodeCache

from om_plugins.csp.jinja.extension import install, salt_bytecode
from tests.csp.jinja.conftest import environment, noncing, read_nonces


def test_bytecode_of_environments_with_and_without_nonces_is_kept_apart(tmp_path):
    def make(nonces):
        cache = FileSystemBytecodeCache(str(tmp_path))
        loader = DictLoader({"a.html": "<script></script>"})
        env = Environment(autoescape=True, loader=loader, bytecode_cache=cache)
        if nonces:
            install(env, environ=noncing)
        return env.get_template("a.html").render()

    for nonces in (False, True, False, True):
        assert ("nonce" in make(nonces)) is nonces
    assert len(list(tmp_path.iterdir())) == 2


def test_bytecode_cache_is_used_and_cleared_through_ours(tmp_path):
    env = Environment(
        loader=DictLoader({"a.html": "x"}), bytecode_cache=FileSystemBytecodeCache(str(tmp_path))
    )
    install(env)
    env.get_template("a.html")
    assert len(list(tmp_path.iterdir())) == 1
    env.bytecode_cache.clear()
    assert not list(tmp_path.iterdir())


def test_the_cache_that_the_app_gave_keeps_its_attributes(tmp_path):
    class Own(FileSystemBytecodeCache):
        asked = 0

        def get_bucket(self, environment, name, filename, source):
            self.asked += 1
            return super().get_bucket(environment, name, filename, source)

    given = Own(str(tmp_path))
    env = environment({"a.html": "<script></script>"}, bytecode_cache=given)
    cache = env.bytecode_cache
    assert (cache.directory, cache.pattern) == (str(tmp_path), given.pattern)
    assert isinstance(cache, Own)
    cache.pattern = "other_%s"
    env.get_template("a.html")
    assert (given.pattern, given.asked) == ("other_%s", 1)
    assert [path.name[:6] for path in tmp_path.iterdir()] == ["other_"]
    with pytest.raises(AttributeError, match="'Own' object has no attribute 'nothing'"):
        cache.nothing  # noqa: B018


def test_bytecode_is_shared_only_with_the_same_csp_nonce(tmp_path):
    source, cache = {"a.html": "<script nonce='{{ csp_nonce() }}'></script>"}, str(tmp_path)
    own = environment(source, bytecode_cache=FileSystemBytecodeCache(cache))
    assert read_nonces(own.get_template("a.html").render()) == ["N"]
    other = environment(source, bytecode_cache=FileSystemBytecodeCache(cache))
    other.globals["csp_nonce"] = lambda: ""  # a package that was bound later, and is turned off
    salt_bytecode(other)
    assert read_nonces(other.get_template("a.html").render()) == ["N"]
