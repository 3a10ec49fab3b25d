"""The webhook notifier posts JSON to a real server, and tells no secret when it cannot."""

from __future__ import annotations

import errno
import json
import os

import pytest

from om_plugins import Settings
from om_plugins.builtin.webhook import WebhookConfig, WebhookNotifier, WebhookRefused
from om_plugins.errors import ConfigError
from om_plugins.plugins.guard.faults import Fault, find_wait_s, judge
from om_plugins.plugins.kit import Host
from om_plugins.runtime import Runtime
from om_plugins.testing.notifier import NotifierContract
from om_plugins.types import Action, Notification
from tests.patience import HANG_S, cut_off

pytest.importorskip("h11")


class TestWebhook(NotifierContract):
    @pytest.fixture
    def notifier(self, upstream):
        self.upstream = upstream
        return WebhookNotifier(WebhookConfig(url=upstream.url + "/in"))

    def delivered(self, notifier):
        return "\n".join(
            json.dumps(json.loads(request["body"]), ensure_ascii=False)
            for request in self.upstream.requests
        )


def note(**more):
    return Notification(**{"kind": "error", "message": "It broke", "id": "7", "at": 5.0} | more)


def test_all_fields_are_sent_with_the_headers_of_the_configuration(upstream):
    config = WebhookConfig(url=upstream.url + "/in?k=1", headers={"Authorization": "Bearer t"})
    WebhookNotifier(config).send(note(actions=(Action("Try", "refresh"),)), 5)
    (request,) = upstream.requests
    assert (request["method"], request["path"]) == ("POST", "/in?k=1")
    assert request["headers"]["authorization"] == "Bearer t"
    assert request["headers"]["content-type"] == "application/json"
    said = upstream.json()
    assert (said["kind"], said["message"], said["id"]) == ("error", "It broke", "7")
    assert said["actions"] == [{"label": "Try", "action": "refresh", "value": ""}]


def test_a_template_is_filled_once_and_what_people_wrote_is_no_template(upstream):
    config = WebhookConfig(
        url=upstream.url,
        template={"text": "[{kind}] {text} {unknown} {", "blocks": [{"id": "{id}"}], "n": 1},
    )
    WebhookNotifier(config).send(note(title="Oh", message='a "{to}" {kind}'), 5)
    assert upstream.json() == {
        "text": '[error] Oh: a "{to}" {kind} {unknown} {',
        "blocks": [{"id": "7"}],
        "n": 1,
    }


def test_what_is_said_to_one_browser_stays_in_the_house(upstream):
    notifier = WebhookNotifier(WebhookConfig(url=upstream.url))
    for to in ("sid:" + "A" * 22, "user:7", "role:editor", "sid:"):
        notifier.send(note(to=to), 5)
    assert upstream.requests == []
    notifier.send(note(to="everyone"), 5)
    assert len(upstream.requests) == 1
    WebhookNotifier(WebhookConfig(url=upstream.url, to=["role:editor"])).send(
        note(to="role:editor"), 5
    )
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("status", [302, 400, 429, 500, 503])
def test_an_answer_that_is_no_success_is_a_failure(upstream, status):
    upstream.answers(status, Location=upstream.url + "/elsewhere")
    with pytest.raises(ConnectionError, match=f"127.0.0.1 answered {status}"):
        WebhookNotifier(WebhookConfig(url=upstream.url + "/secret-token")).send(note(), 5)
    assert len(upstream.requests) == 1  # neither followed nor tried again here


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (429, {"Retry-After": "20"}, 20),
        (503, {"Retry-After": "2"}, 2),
        (429, {"retry-after-ms": "1500"}, 1.5),
        (429, {"x-ratelimit-reset-after": "3"}, 3),
        (500, {"Retry-After": "7"}, 7),
        (503, {"Retry-After": "7200"}, 7200),
        (503, {"Retry-After": "99999999"}, 7 * 86_400),
        (404, {"x-ratelimit-reset-after": "3"}, None),
        (503, {}, None),
        (429, {"Retry-After": "soon"}, None),
    ],
)
def test_a_refusal_tells_its_status_and_for_how_long_to_wait(upstream, status, headers, wait_s):
    upstream.answers(status, **headers)
    with pytest.raises(WebhookRefused) as caught:
        WebhookNotifier(WebhookConfig(url=upstream.url)).send(note(), 5)
    assert (caught.value.status, find_wait_s(caught.value)) == (status, wait_s)


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        *((one, Fault.REFUSED) for one in (400, 413, 415, 422)),
        *(
            (one, Fault.AWAY)
            for one in (302, 401, 403, 404, 408, 410, 425, 429, 500, 502, 503, 504)
        ),
    ],
)
def test_what_a_status_says_is_never_that_the_code_is_broken(status, fault):
    assert judge(WebhookRefused("hooks.example", status, {})) is fault


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_each_status_of_success_is_one_also_without_a_body(upstream, status):
    upstream.answers(status)
    WebhookNotifier(WebhookConfig(url=upstream.url)).send(note(), 5)
    assert len(upstream.requests) == 1


def test_it_says_before_what_it_would_not_send(upstream):
    notifier = WebhookNotifier(WebhookConfig(url=upstream.url))
    said = [note(to=to) for to in ("operators", "everyone", "user:7", "sid:")]
    wanted = [one.to for one in said if notifier.accepts(one)]
    assert wanted == ["operators", "everyone"]


def test_a_failure_does_not_tell_the_address(refused_url):
    with pytest.raises(ConnectionError) as caught:
        WebhookNotifier(WebhookConfig(url=refused_url + "/secret-token")).send(note(), 5)
    assert "secret-token" not in str(caught.value)
    assert os.strerror(errno.ECONNREFUSED) in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_server_that_says_nothing_is_given_up_in_time(raw_upstream):
    silent = raw_upstream(lambda sock, number: silent.over.wait(HANG_S))
    with cut_off(0.2), pytest.raises(ConnectionError, match="Timeout"):
        WebhookNotifier(WebhookConfig(url=silent.url)).send(note(), 0.2)


@pytest.mark.parametrize("url", ["hooks.example", "file:///etc/passwd", "ftp://x/", "https://"])
def test_only_web_addresses_are_taken(url):
    with pytest.raises(ConfigError, match="must be a URL such as") as caught:
        WebhookConfig(url=url)
    assert str(caught.value).startswith("url '…':")


def test_it_is_off_until_it_has_an_address(upstream):
    for config, expected in (({}, 0), ({"notifier-webhook": {"url": upstream.url}}, 1)):
        runtime = Runtime(Settings(plugin_config=config), host=Host(testing=True))
        runtime.part_of("notifications").error("It broke")
        runtime.scheduler.run_pending()
        runtime.close()
        assert len(upstream.requests) == expected


def test_it_goes_through_the_proxy_of_the_application(upstream):
    proxy = upstream.url.replace("//", "//me:secret@")
    notifier = WebhookNotifier(WebhookConfig(url="http://hooks.example/in"), proxy)
    notifier.send(note(), 5)
    (request,) = upstream.requests
    assert request["path"] == "http://hooks.example/in"
    assert request["headers"]["proxy-authorization"].startswith("Basic ")


def test_a_proxy_that_refuses_is_a_failure_that_shows_no_password(upstream):
    upstream.answers(407)
    proxy = upstream.url.replace("//", "//me:secret@")
    with pytest.raises(ConnectionError) as caught:
        WebhookNotifier(WebhookConfig(url="http://hooks.example/in"), proxy).send(note(), 5)
    assert "secret" not in str(caught.value)


def test_a_wrong_proxy_of_the_environment_is_found_at_the_start(monkeypatch):
    monkeypatch.setenv("http_proxy", "socks5://me:secret@p.internal")
    with pytest.raises(ConfigError, match=r"http_proxy 'socks5://…@p\.internal'"):
        WebhookNotifier(WebhookConfig(url="http://hooks.example/in"), "environment")
