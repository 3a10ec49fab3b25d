"""Security headers of every response: the policy, its companions, HTTPS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..csp.feature import CspKeys, preset
from ..errors import ConfigError
from ..plugins.feature import Feature, Finding
from ..settings.compose import ComposedSettings
from ..settings.general import GeneralKeys
from ..settings.kinds import BOOL, FEATURES, HEADERS, PATH_PATTERNS, integer, single
from ..settings.table import Table, key

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from ..plugins.kit import Kit
    from .layer import HeaderPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class HstsOptions(Table):
    """What ``Strict-Transport-Security`` says (RFC 6797). Browsers remember it."""

    TITLE: ClassVar[str] = "HSTS's options"

    max_age: int = key(
        31_536_000, integer(0, 2**31, "seconds"), "how long browsers keep to HTTPS; 0 ends it"
    )
    include_subdomains: bool = key(False, BOOL, "subdomains, too: all of them must speak HTTPS")
    preload: bool = key(False, BOOL, "the site may be put on the list that browsers are built with")

    def render(self) -> str:
        """The header's value.

        Raises:
            ConfigError: the preload list would not take the site.
        """
        if self.preload and not (self.include_subdomains and self.max_age >= 31_536_000):
            raise ConfigError(
                "OM_HSTS['preload']",
                True,
                "the list takes a site only with include_subdomains and a max_age of at least "
                "31536000 (hstspreload.org)",
            )
        value = f"max-age={self.max_age}"
        if self.include_subdomains:
            value += "; includeSubDomains"
        return value + ("; preload" if self.preload else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForceHttpsOptions(Table):
    """How requests over plain HTTP are redirected."""

    TITLE: ClassVar[str] = "Options of the redirect to HTTPS"
    SWITCH: ClassVar[str] = "all"

    all: bool = key(
        True,
        BOOL,
        "redirect every request; when false, only those of views with "
        "`@om.headers(force_https=True)`",
    )
    permanent: bool = key(False, BOOL, "redirect with 301 and 308, which browsers remember")
    exempt: tuple[str, ...] = key(
        (),
        PATH_PATTERNS,
        "paths that are answered over plain HTTP, too, such as `/up` or `/status/*`; this "
        "package's own health checks always are",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderKeys(Table):
    """The settings of the companion headers and of HTTPS."""

    PREFIX: ClassVar[str] = "OM_"
    RENAMED: ClassVar[Mapping[str, str]] = {
        "OM_FORCE_HTTPS_PERMANENT": "OM_FORCE_HTTPS = {'permanent': …}",
        "OM_FORCE_HTTPS_EXEMPT": "OM_FORCE_HTTPS = {'exempt': …}",
    }

    headers: dict[str, str | None] = key(
        {},
        HEADERS,
        "companion headers, added where the app set none: overrides `X-Content-Type-Options`, "
        "`Referrer-Policy` and `Cross-Origin-Opener-Policy`, and adds others",
        "Security headers",
    )
    secure_cookies: bool = key(
        False,
        BOOL,
        "the session cookie and Flask-Login's are `Secure` (not in debug mode, not under "
        "`TESTING`), `HttpOnly` and `SameSite=Lax`, where the app chose nothing else",
        "Security headers",
    )
    permissions_policy: dict[str, tuple[str, ...]] = key(
        {},
        FEATURES,
        "which powers of a browser pages may use: `{'geolocation': 'self', 'camera': []}`",
        "Security headers",
    )
    force_https: ForceHttpsOptions = key(
        ForceHttpsOptions(all=False),
        single(ForceHttpsOptions, "OM_FORCE_HTTPS"),
        "redirect what comes over plain HTTP, except in debug mode; behind a proxy that ends TLS, "
        "`OM_PROXIES` must be set. Options switch it on as well: `{'exempt': ['/up']}`, unless "
        "they have `'all': False`",
        "Security headers",
    )
    hsts: HstsOptions | None = key(
        None,
        single(HstsOptions, "OM_HSTS"),
        "browsers keep to HTTPS: `{'max_age': 31536000}`; sent over HTTPS alone, and not at all "
        "when not set",
        "Security headers",
    )


class HeadersFeature(Feature["HeadersPart", HeaderKeys]):
    """Sends the Content-Security-Policy and its companion headers."""

    name = "headers"
    keys = HeaderKeys

    def build(self, kit: Kit, keys: HeaderKeys) -> HeadersPart:
        extra, asked = kit.part_of("csp").of_plugins()
        return HeadersPart(
            policy_from(
                kit.settings,
                debug=kit.host.debug,
                testing=kit.host.testing,
                extra=extra,
                callables=asked,
            )
        )

    def layer(self, kit: Kit, part: HeadersPart, app: WSGIApplication) -> WSGIApplication:
        from .layer import HeadersLayer

        return HeadersLayer(app, part.policy)

    def findings(self, kit: Kit, part: HeadersPart) -> Iterable[Finding]:
        own = {name.lower() for name in kit.settings.of(HeaderKeys).headers}
        if (
            part.policy.mode != "off"
            and "frame-ancestors" not in part.policy.rules.strict
            and "x-frame-options" not in own
        ):
            yield Finding(
                "warn",
                "OM_CSP",
                "Every site may show the pages in a frame: there is no frame-ancestors.",
                "Add frame-ancestors 'self'; let single views differ with @om.csp.",
            )


class HeadersPart:
    """The headers of one application.

    Attributes:
        policy: what is sent.
        cached_pages: what a cache of whole pages asks about the nonces and marks of a page.
        of_hits: the headers that a hit of such a cache leaves with.
    """

    def __init__(self, policy: HeaderPolicy) -> None:
        from .cached_pages import CachedPages, HitHeaderPolicy

        self.policy = policy
        self.cached_pages = CachedPages()
        self.of_hits = HitHeaderPolicy(policy)


def policy_from(
    settings: ComposedSettings,
    *,
    debug: bool,
    testing: bool = False,
    extra: Mapping[str, Sequence[str]] | None = None,
    callables: Sequence[Callable[[WSGIEnvironment], Any]] = (),
) -> HeaderPolicy:
    """The policy that the ``OM_`` keys ask for.

    Args:
        settings: of them the keys of ``csp``, of this feature, and the prefix.
        debug: the host application runs in debug mode: every HTML response asks for reports.
        testing: the host application is under test, where chance has no place: no response asks
            for reports, unless all do by their own setting.
        extra, callables: what plugins gave for ``om_csp``.

    Raises:
        ConfigError: names the key, the value and the way out.
    """
    from ..csp.modes import Paths, PolicyRules
    from ..csp.presets import API
    from .companions import merge_with_defaults
    from .layer import HeaderPolicy

    csp, keys = settings.of(CspKeys), settings.of(HeaderKeys)
    sample = csp.csp_report_sample
    if csp.csp_mode == "learn":
        sample = 1.0
    elif testing:
        sample = float(sample >= 1.0)
    elif debug:
        sample = 1.0
    rules = PolicyRules(
        mode=csp.csp_mode,
        base=preset(csp),
        own=csp.csp,
        enforce_also=csp.csp_enforce_also,
        report_also=csp.csp_report_also,
        api=API if csp.csp_api is None else csp.csp_api,
        extra=extra,
    )
    return HeaderPolicy(
        rules=rules,
        companions=merge_with_defaults(
            keys.headers,
            hsts="" if keys.hsts is None else keys.hsts.render(),
            permissions=keys.permissions_policy,
        ),
        report_path=f"{settings.of(GeneralKeys).prefix}/csp",
        report_sample=sample,
        callables=callables,
        paths=Paths(csp.csp_paths),
        hash_attributes=csp.csp_hash_attributes,
    )


class HttpsFeature(Feature[ForceHttpsOptions, HeaderKeys]):
    """Redirects plain HTTP; not in debug mode."""

    name = "https"
    keys = HeaderKeys

    def build(self, kit: Kit, keys: HeaderKeys) -> ForceHttpsOptions:
        return keys.force_https

    def layer(
        self, kit: Kit, part: ForceHttpsOptions, app: WSGIApplication
    ) -> WSGIApplication | None:
        wishes = kit.host.declared.get(self.name, ())
        if kit.host.debug or not (part.all or wishes):
            return None
        from .https import HttpsLayer

        prefix = kit.keys.prefix
        return HttpsLayer(
            app,
            permanent=part.permanent,
            exempt=(*part.exempt, f"{prefix}/health", f"{prefix}/ready"),
            trusted_hosts=kit.trusted_hosts,
            everywhere=part.all,
            wish=kit.host.https_wish if wishes else None,
        )
