"""Keeps the nonce of one response out of the templates that others import.

Jinja renders a template that is imported once, and keeps the result, its *module*. What is in its
``{% set %}`` blocks and in its text would have the nonce of the first response for ever, and its
hashes would be noted once. Here a module is kept only when nothing in it asked for the nonce or
noted a hash; otherwise each import renders it anew. Macros are rendered when they are called, so
most modules are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from jinja2 import Template
from jinja2.environment import TemplateModule
from jinja2.runtime import Context

from ..nonce import NonceWatch

HOST = "om_plugins"
"""The key of the host in the policies of an environment.

A new attribute would make every method look-up on the environment slower: CPython stores the
attributes of objects compactly only up to a limited number, and Flask's environment has room for
one, which is ``code_generator_class``.
"""


class Watching(Protocol):
    """What a host offers to the templates of its environment."""

    def watch(self) -> NonceWatch:
        """Return a watch over the response that is being made."""


class FreshModules(Template):
    """A template whose module is kept only while it is right.

    Attributes:
        module_for_all: fits every response; ``None`` when there is none.
        module_outside: was made outside of a request, and fits there.
    """

    module_for_all: TemplateModule | None = None
    module_outside: TemplateModule | None = None

    def _get_default_module(self, ctx: Context | None = None) -> TemplateModule:
        if self.environment.is_async or self._lacks_globals(ctx):
            return super()._get_default_module(ctx)
        module = self.module_for_all
        if module is None:
            watch = self._watch()
            module = self._find_module(watch)
            if module is None:
                with watch:
                    module = self.make_module()
                self._keep(module, watch)
        return module

    async def _get_default_module_async(self, ctx: Context | None = None) -> TemplateModule:
        if self._lacks_globals(ctx):
            return await super()._get_default_module_async(ctx)
        module = self.module_for_all
        if module is None:
            watch = self._watch()
            module = self._find_module(watch)
            if module is None:
                with watch:
                    module = await self.make_module_async()
                self._keep(module, watch)
        return module

    def _lacks_globals(self, ctx: Context | None) -> bool:
        """Return whether the importing template has other globals. Jinja keeps no module then."""
        return ctx is not None and not ctx.globals_keys.issubset(self.globals)

    def _watch(self) -> NonceWatch:
        host: Watching = self.environment.policies[HOST]
        return host.watch()

    def _find_module(self, watch: NonceWatch) -> TemplateModule | None:
        return self.module_outside if watch.state is None else None

    def _keep(self, module: TemplateModule, watch: NonceWatch) -> None:
        if watch.state is None:
            self.module_outside = module
        elif not watch.asked:
            self.module_for_all = module


def add_fresh_modules(cls: type[Template]) -> type[Template]:
    """Return a subclass of a class of templates that is also :class:`FreshModules`."""
    if issubclass(cls, FreshModules):
        return cls
    if cls is Template:
        return FreshModules
    return type(f"Fresh{cls.__name__}", (FreshModules, cls), {})


def make_fresh_at_first(root: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the root function of a compiled template, to change the class of its template once.

    That is when it is first rendered. The result of this rendering may become a module that Jinja
    keeps, but Jinja's own attribute for it is not read again. A template of another class than
    Jinja's has the right class from the beginning, see :func:`~.extension.install`.
    """

    def first(context: Context) -> Any:
        template: Template = root.__globals__["__jinja_template__"]
        if type(template) is Template:
            template.__class__ = FreshModules
        template.root_render_func = root
        return root(context)

    return first
