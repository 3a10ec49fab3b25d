"""``om_static('app.js')``: the tag of a static file, with a hash in its URL and as ``integrity``.

A changed file has another hash and so another URL, so browsers may cache each URL for long. With
``integrity``, the browser refuses a file that somebody changed on its way.
Source: Subresource Integrity, https://www.w3.org/TR/sri/.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, current_app, has_request_context, request, url_for
from markupsafe import Markup
from werkzeug.security import safe_join

from ..csp.hashes import OWN, note_hash
from ..csp.nonce import tag_nonce
from .current import current_state

if TYPE_CHECKING:
    from collections.abc import Callable


class StaticFile:
    """One static file in a template: ``{{ om_static('app.js') }}`` renders its whole tag.

    Attributes:
        url: the URL of the file, with a short hash.
        integrity: such as ``sha384-…``.
    """

    def __init__(
        self,
        name: str,
        url: str,
        integrity: str,
        attributes: dict[str, object],
        *,
        hashes: bool = False,
    ) -> None:
        self.url = url
        self.integrity = integrity
        self._name = name
        self._attributes = attributes
        self._hashes = hashes

    def __html__(self) -> str:
        sheet = self._name.endswith(".css")
        link = sheet or "rel" in self._attributes
        if not link and not self._name.endswith((".js", ".mjs")):
            raise ValueError(
                f"om_static({self._name!r}) writes the tags of scripts and style sheets: for "
                "another file say rel=…, or write its tag with om_static(…).url"
            )
        given: dict[str, object] = {"rel": "stylesheet"} if sheet else {}
        given["href" if link else "src"] = self.url
        given["integrity"] = self.integrity
        if "://" in self.url:
            given["crossorigin"] = (
                "anonymous"  # the browser checks files of other hosts only with CORS
            )
        if has_request_context():
            state = current_state()
            # a policy that lists hashes also allows the site's own files
            own = self._hashes and "://" not in self.url and note_hash(state, OWN)
            given["nonce"] = None if own else tag_nonce(state)
        given |= self._attributes
        text = Markup()
        for name, one in given.items():
            if one is True:
                text += Markup(" {}").format(name)
            elif one is not None and one is not False:
                text += Markup(' {}="{}"').format(name, one)
        if link:
            return Markup("<link{}>").format(text)
        return Markup("<script{}></script>").format(text)

    def __str__(self) -> str:
        return str(self.__html__())


def static_helper(hashes: Callable[[], bool] = lambda: False) -> Callable[..., StaticFile]:
    """Make the template global for one app. It caches the hashes of files.

    Args:
        hashes: whether a policy of the app lists hashes.
    """
    known: dict[tuple[str, str], tuple[float, int, str]] = {}

    def om_static(filename: str, *, endpoint: str = "static", **attributes: object) -> StaticFile:
        """Return the tag of a static file.

        Args:
            filename: the path below the static folder, such as ``js/app.js``.
            endpoint: the endpoint of the static files; ``blueprint.static`` for a blueprint.
            attributes: attributes of the tag, such as ``type="module"`` or ``defer=True``. With
                ``rel``, the tag is a ``<link>``: ``rel="preload", as="script"``.

        Raises:
            FileNotFoundError: there is no such file.
        """
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        if endpoint.startswith("."):
            endpoint = f"{request.blueprint or ''}{endpoint}"
        path = _path(app, endpoint, filename)
        stat = path.stat()
        stamp = known.get((endpoint, filename))
        if stamp is None or stamp[:2] != (stat.st_mtime, stat.st_size):
            digest = hashlib.sha384(path.read_bytes()).digest()
            stamp = (stat.st_mtime, stat.st_size, base64.b64encode(digest).decode())
            known[endpoint, filename] = stamp
        short = stamp[2].translate(_IN_URL)[:12]
        url = url_for(endpoint, filename=filename, v=short)
        return StaticFile(filename, url, f"sha384-{stamp[2]}", attributes, hashes=hashes())

    return om_static


_IN_URL = str.maketrans("+/", "-_")


def _path(app: Flask, endpoint: str, filename: str) -> Path:
    blueprint = endpoint.rpartition(".")[0]
    owner = app.blueprints[blueprint] if blueprint else app
    found = safe_join(owner.static_folder or "", filename) if owner.static_folder else None
    if found is None or not Path(found).is_file():
        raise FileNotFoundError(
            f"om_static({filename!r}): no such file in the static folder of "
            f"{blueprint or app.name!r} ({owner.static_folder or 'there is none'})"
        )
    return Path(found)
