"""The friendly page: what a person, or a program, gets when nothing else answered.

HTML for those who ask for it by name, else a problem document (RFC 9457). The page brings a policy
of its own, needs no script and no file, and works under any ``OM_CSP_MODE``.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header
from werkzeug.wsgi import get_host

from ..chains.http_call import limit_retry_after
from ..core.problem import CONTENT_TYPE, build_problem, encode_problem
from ..core.translations import load_translations
from ..csp.nonce import nonce
from ..recovery import messages__wording as wording

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from jinja2 import Environment

__all__ = ["Friendly", "rendered", "thank_for_report"]

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


class Friendly:
    """Makes the page and the problem document.

    Args:
        prefix: where this package's own pages are, below the application's root.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def answer(
        self,
        environ: WSGIEnvironment,
        status: int,
        failed: Headers,
        reference: str,
        wait_s: float | None = None,
    ) -> tuple[int, Headers, bytes]:
        """The answer to a request whose view failed.

        Args:
            environ: the request.
            status: the true status.
            failed: the headers of the failed answer, of which ``Retry-After`` is kept.
            reference: goes with a report, such as the fingerprint of the error; "" for none.
            wait_s: what the error asks to wait, in seconds, such as a chain that nobody answered.
        """
        say = load_translations(environ)
        safe = environ.get("REQUEST_METHOD") in _SAFE
        text = say(wording.LATE if status == 504 else wording.WRONG)
        if not safe:
            text = f"{text} {say(wording.UNSAVED)}"
        extra: Headers = [("Content-Language", say.language), ("Vary", "Accept, Accept-Language")]
        wait = next((v for n, v in failed if n.lower() == "retry-after"), "")
        if wait or status == 503:
            extra.append(("Retry-After", wait or str(limit_retry_after(wait_s))))
        if not wants_page(environ.get("HTTP_ACCEPT")):
            document = build_problem(status, "", text)
            headers = [("Content-Type", CONTENT_TYPE), ("Cache-Control", "no-store"), *extra]
            return status, headers, encode_problem(document)
        root = quote(environ.get("SCRIPT_NAME", "").encode("latin-1", "replace"))
        headers, body = rendered(
            environ,
            "failed.html",
            language=say.language,
            title=say(wording.TITLE),
            text=text,
            again=say(wording.REFRESH if safe else wording.BACK),
            # an empty address is this very page, whatever its path looks like
            again_at="" if safe else _came_from(environ),
            report=say(wording.REPORT),
            base=root + self._prefix,
            here=_here(environ),
            reference=reference,
        )
        return status, [*headers, *extra], body


def wants_page(accept: str | None) -> bool:
    """Whether the client asks for HTML by name, and likes it no less than JSON."""
    if not accept or "text/html" not in accept.lower():
        return False
    accepted = parse_accept_header(accept, MIMEAccept)
    html = accepted.quality("text/html")
    named = any(kind.partition(";")[0].lower() == "text/html" for kind, q in accepted if q > 0)
    return bool(named and html > 0 and html >= accepted.quality("application/json"))


def rendered(environ: WSGIEnvironment, template: str, **values: object) -> tuple[Headers, bytes]:
    """Headers and body of one of the templates, under a policy of its own."""
    number = nonce(environ)
    text = _templates().get_template(template).render(nonce=number, **values)
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", _POLICY.format(nonce=number)),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "same-origin"),
        ("Cache-Control", "no-store"),
    ]
    return headers, text.encode()


def thank_for_report(environ: WSGIEnvironment, report_id: str, url: str) -> tuple[Headers, bytes]:
    """Headers and body of the page that thanks for a problem report.

    Args:
        environ: the request that brought the report.
        report_id: the number of the report.
        url: the page that the person came from.
    """
    say = load_translations(environ)
    return rendered(
        environ,
        "sent.html",
        language=say.language,
        title=say(wording.THANKS),
        text=say(wording.SENT, number=report_id),
        back=say(wording.BACK),
        here=local_address(url),
    )


def local_address(address: str) -> str:
    """``address`` if it is a path of this site, else "/"."""
    fine = address.startswith("/") and address[1:2] not in ("/", "\\")
    printable = address.isascii() and address.isprintable() and " " not in address
    return address if fine and printable and len(address) <= _MAX_ADDRESS else "/"


def _here(environ: WSGIEnvironment) -> str:
    """The path and query of this request, as an address."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    query = environ.get("QUERY_STRING", "")
    address = quote(path.encode("latin-1", "replace"), safe="/:@!$&'()*+,;=~-._")
    return local_address(f"{address}?{query}" if query else address)


def _came_from(environ: WSGIEnvironment) -> str:
    """The page of this site that sent the request, else the application's root."""
    root = quote(environ.get("SCRIPT_NAME", "").encode("latin-1", "replace")) + "/"
    try:
        found = urlsplit(environ.get("HTTP_REFERER", ""))
        if not found.netloc or found.netloc != get_host(environ):
            return root
    except ValueError:
        return root
    return local_address(found.path + (f"?{found.query}" if found.query else ""))


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("om_plugins.fallback"), autoescape=True, undefined=StrictUndefined
    )
