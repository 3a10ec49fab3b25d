"""The features ``headers`` and ``https``: the policy, its companion headers, the redirect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.fork import CachedProperty
from ..csp.feature import CspKeys, read_preset
from ..plugins.feature import Feature
from ..plugins.kit import Finding
from ..settings.compose import ComposedSettings
from ..settings.general import GeneralKeys
from ..settings.kinds import BOOL, FEATURES, HEADERS, PATH_PATTERNS, single
from ..settings.table import Table, key
from .hsts import HstsOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

    from ..plugins.kit import Kit
    from .cached_pages import CachedPages, HitHeaderPolicy
    from .layer import HeaderPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ForceHttpsOptions(Table):
    """The options of the redirect from plain HTTP."""

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
        "paths that are also served over plain HTTP, such as `/up` or `/status/*`; this "
        "package's own health checks always are",
    )


_key = partial(key, group="Security headers")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderKeys(Table):
    """The settings of the companion headers and of HTTPS."""

    PREFIX: ClassVar[str] = "OM_"
    RENAMED: ClassVar[Mapping[str, str]] = {
        "OM_FORCE_HTTPS_PERMANENT": "OM_FORCE_HTTPS = {'permanent': …}",
        "OM_FORCE_HTTPS_EXEMPT": "OM_FORCE_HTTPS = {'exempt': …}",
    }

    headers: dict[str, str | None] = _key(
        {},
        HEADERS,
        "companion headers, added when the app did not set them, in every mode: overrides "
        "`X-Content-Type-Options`, `Referrer-Policy` and `Cross-Origin-Opener-Policy`, which "
        "`adopt` and `learn` do not send by themselves, and adds others",
    )
    secure_cookies: bool = _key(
        False,
        BOOL,
        "the session cookie and Flask-Login's are `Secure` (not in debug mode, not under "
        "`TESTING`), `HttpOnly` and `SameSite=Lax`, unless the app chose another value",
    )
    permissions_policy: dict[str, tuple[str, ...]] = _key(
        {},
        FEATURES,
        "which features of the browser pages may use: `{'geolocation': 'self', 'camera': []}`",
    )
    force_https: ForceHttpsOptions = _key(
        ForceHttpsOptions(all=False),
        single(ForceHttpsOptions, "OM_FORCE_HTTPS"),
        "redirect plain HTTP, except in debug mode; behind a proxy that ends TLS, set "
        "`OM_PROXIES`. Options turn it on, too: `{'exempt': ['/up']}`, unless they have "
        "`'all': False`",
    )
    hsts: HstsOptions | None = _key(
        None,
        single(HstsOptions, "OM_HSTS"),
        "browsers use HTTPS only: `{'max_age': 31536000}`; sent over HTTPS only, and never when "
        "not set",
    )


class HeadersFeature(Feature["HeadersPart", HeaderKeys]):
    """Sends the Content-Security-Policy and its companion headers."""

    name = "headers"
    keys = HeaderKeys

    def build(self, kit: Kit, keys: HeaderKeys) -> HeadersPart:
        extra, callables = kit.part_of("csp").collect_sources()
        return HeadersPart(
            policy_from(
                kit.settings,
                debug=kit.host.debug,
                testing=kit.host.testing,
                extra=extra,
                callables=callables,
            )
        )

    def layer(self, kit: Kit, part: HeadersPart, app: WSGIApplication) -> WSGIApplication:
        from .layer import HeadersLayer

        return HeadersLayer(app, part.policy)

    def findings(self, kit: Kit, part: HeadersPart) -> Iterable[Finding]:
        if part.policy.mode != "off" and part.policy.rules.ignored:
            yield Finding(
                "warn",
                "om_csp",
                f"A plugin adds sources in vain: {part.policy.rules.ignored}.",
                "If the application is to allow it, set it in OM_CSP or with @om.csp(update=…).",
            )
        own = {name.lower() for name in kit.settings.of(HeaderKeys).headers}
        if (
            part.policy.mode != "off"
            and "frame-ancestors" not in part.policy.rules.strict
            and "x-frame-options" not in own
        ):
            yield Finding(
                "warn",
                "OM_CSP",
                "Every site may show the pages in a frame: the policy has no frame-ancestors.",
                "Add frame-ancestors 'self'. Change it for single views with @om.csp.",
            )


class HeadersPart:
    """The headers of one application.

    Attributes:
        policy: the policy and the companion headers of each response.
        cached_pages: gives a cache of whole pages the nonces and marks of a page.
        of_hits: the headers of a hit of such a cache.
    """

    def __init__(self, policy: HeaderPolicy) -> None:
        self.policy = policy

    @CachedProperty
    def cached_pages(self) -> CachedPages:
        from .cached_pages import CachedPages

        return CachedPages()

    @CachedProperty
    def of_hits(self) -> HitHeaderPolicy:
        from .cached_pages import HitHeaderPolicy

        return HitHeaderPolicy(self.policy)


def policy_from(
    settings: ComposedSettings,
    *,
    debug: bool,
    testing: bool = False,
    extra: Mapping[str, Sequence[str]] | None = None,
    callables: Sequence[Callable[[WSGIEnvironment], Any]] = (),
) -> HeaderPolicy:
    """Build the policy from the ``OM_`` keys.

    Args:
        settings: the keys of ``csp`` and of this feature, and the prefix, are read.
        debug: the host application is in debug mode: every HTML response asks for reports.
        testing: the host application is under test, and tests must not depend on chance: no
            response asks for reports, unless the share is 1.
        extra, callables: the results of the plugins' ``om_csp``.

    Raises:
        ConfigError: a value is invalid; the error names the key, the value and the solution.
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
        base=read_preset(csp),
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
            csp.csp_mode,
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
    """Redirects plain HTTP to HTTPS, except in debug mode."""

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
