"""``Strict-Transport-Security`` (RFC 6797): its options and its value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigError
from ..settings.kinds import BOOL, integer
from ..settings.table import Table, key


@dataclass(frozen=True, slots=True, kw_only=True)
class HstsOptions(Table):
    """The options of ``Strict-Transport-Security`` (RFC 6797), which browsers remember."""

    TITLE: ClassVar[str] = "HSTS's options"

    max_age: int = key(
        31_536_000, integer(0, 2**31, "seconds"), "how long browsers use HTTPS only; 0 ends it"
    )
    include_subdomains: bool = key(
        False, BOOL, "also for subdomains, all of which must support HTTPS"
    )
    preload: bool = key(False, BOOL, "the site may be on the preload list of browsers")

    def render(self) -> str:
        """Return the value of the header.

        Raises:
            ConfigError: the preload list would not accept the site.
        """
        if self.preload and not (self.include_subdomains and self.max_age >= 31_536_000):
            raise ConfigError(
                "OM_HSTS['preload']",
                True,
                "the list accepts a site only with include_subdomains and a max_age of at least "
                "31536000 (hstspreload.org)",
            )
        value = f"max-age={self.max_age}"
        if self.include_subdomains:
            value += "; includeSubDomains"
        return value + ("; preload" if self.preload else "")
