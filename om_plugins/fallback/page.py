"""The fallback page: what a person, or a program, gets when nothing else answers.

A client that asks for HTML by name gets a page, any other one a problem document (RFC 9457). The
page has a policy of its own, needs no script and no file, and works under any ``OM_CSP_MODE``.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from werkzeug.wsgi import get_host

from ..chains.http_call import limit_retry_after, prefers
from ..core.problem import CONTENT_TYPE, build_problem, encode_problem
from ..core.request_state import state_of
from ..core.translations import load_translations

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from jinja2 import Environment

# What people read; the English text is the key for translations.
TITLE = "This page cannot be shown right now"
WRONG = "Something went wrong on our side, not on yours. Please try again in a moment."
LATE = "It took too long. Please try again in a moment."
UNSAVED = "What you sent may not have been saved: please look before you send it again."
REFRESH = "Refresh"
REPORT = "Report problem"
BACK = "Back to the page"
THANKS = "Thank you"
SENT = "Your report was sent. Its number is {number}."

Headers = list[tuple[str, str]]

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'nonce-{nonce}' 'strict-dynamic'",
        "style-src 'nonce-{nonce}'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'self'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_SAFE = ("GET", "HEAD")
_MAX_ADDRESS = 2_000


class FallbackPage:
    """Makes the page and the problem document.

    Args:
        prefix: the path of this package's own pages, below the application's root.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def render(
        self,
        environ: WSGIEnvironment,
        status: int,
        failed: Headers,
        reference: str,
        wait_s: float | None = None,
    ) -> tuple[int, Headers, bytes]:
        """Return status, headers and body for a request whose view failed.

        Args:
            environ: the request.
            status: the true status.
            failed: the headers of the failed response, of which ``Retry-After`` is kept.
            reference: sent with a report, such as the fingerprint of the error; "" for none.
            wait_s: the wait in seconds that the error asks for, such as the error of a chain.
        """
        translate = load_translations(environ)
        is_safe = environ.get("REQUEST_METHOD") in _SAFE
        text = translate(LATE if status == 504 else WRONG)
        if not is_safe:
            text = f"{text} {translate(UNSAVED)}"
        extra: Headers = [
            ("Content-Language", translate.language),
            ("Vary", "Accept, Accept-Language"),
        ]
        wait = next((v for n, v in failed if n.lower() == "retry-after"), "")
        if wait or status == 503:
            extra.append(("Retry-After", wait or str(limit_retry_after(wait_s))))
        if not prefers_html(environ.get("HTTP_ACCEPT")):
            document = build_problem(status, "", text)
            headers = [("Content-Type", CONTENT_TYPE), ("Cache-Control", "no-store"), *extra]
            return status, headers, encode_problem(document)
        root = quote(environ.get("SCRIPT_NAME", "").encode("latin-1", "replace"))
        headers, body = render_template(
            environ,
            "failed.html",
            language=translate.language,
            title=translate(TITLE),
            text=text,
            again=translate(REFRESH if is_safe else BACK),
            # an empty address is this page, whatever its path looks like
            again_at="" if is_safe else _find_referring_page(environ),
            report=translate(REPORT),
            base=root + self._prefix,
            here=_build_address(environ),
            reference=reference,
        )
        return status, [*headers, *extra], body


def prefers_html(accept: str | None) -> bool:
    """Whether the client asks for HTML by name, and prefers it to JSON or likes both the same."""
    return prefers(accept, "text/html")


def render_template(
    environ: WSGIEnvironment, template: str, **values: object
) -> tuple[Headers, bytes]:
    """Return headers and body of a template, with a policy of its own."""
    number = state_of(environ).nonce_for_page()
    text = _load_templates().get_template(template).render(nonce=number, **values)
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", _POLICY.format(nonce=number)),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "same-origin"),
        ("Cache-Control", "no-store"),
    ]
    return headers, text.encode()


def thank_for_report(environ: WSGIEnvironment, report_id: str, url: str) -> tuple[Headers, bytes]:
    """Return headers and body of the page that thanks for a problem report.

    Args:
        environ: the request with the report.
        report_id: the number of the report.
        url: the page that the person came from.
    """
    translate = load_translations(environ)
    return render_template(
        environ,
        "sent.html",
        language=translate.language,
        title=translate(THANKS),
        text=translate(SENT, number=report_id),
        back=translate(BACK),
        here=keep_local(url),
    )


def keep_local(address: str) -> str:
    """Return ``address`` if it is a path of this site, else "/"."""
    is_path = address.startswith("/") and address[1:2] not in ("/", "\\")
    is_printable = address.isascii() and address.isprintable() and " " not in address
    return address if is_path and is_printable and len(address) <= _MAX_ADDRESS else "/"


def _build_address(environ: WSGIEnvironment) -> str:
    """Return the path and query of this request as an address."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    query = environ.get("QUERY_STRING", "")
    address = quote(path.encode("latin-1", "replace"), safe="/:@!$&'()*+,;=~-._")
    return keep_local(f"{address}?{query}" if query else address)


def _find_referring_page(environ: WSGIEnvironment) -> str:
    """Return the page of this site that sent the request, else the application's root."""
    root = quote(environ.get("SCRIPT_NAME", "").encode("latin-1", "replace")) + "/"
    try:
        found = urlsplit(environ.get("HTTP_REFERER", ""))
        if not found.netloc or found.netloc != get_host(environ):
            return root
    except ValueError:
        return root
    return keep_local(found.path + (f"?{found.query}" if found.query else ""))


@functools.cache
def _load_templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("om_plugins.fallback"), autoescape=True, undefined=StrictUndefined
    )
