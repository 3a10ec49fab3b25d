"""The endpoint of the files that pages load from this package."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import mimetypes
from collections.abc import Iterable
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Request, Response

from ..core.problem import Refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MAX_AGE_S = 60
"""Modules import each other by name. Two releases may mix in a browser for this long."""


class StaticFiles:
    """A WSGI app that serves files by the last part of the path.

    Each file is read once and kept with its ETag. The folders are flat, and the first one that has
    a file of the asked name gives it.
    """

    def __init__(self) -> None:
        self._folders = [_find_folder(__package__)]
        self._files: dict[str, tuple[bytes, str, str]] = {}

    def add_folder(self, package: str) -> None:
        """Serve the files in the folder ``static`` of a package, too.

        Args:
            package: the package's name, such as ``__package__``.
        """
        self._folders.append(_find_folder(package))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            refusal = Refusal(405, "Use GET here.", [("Allow", "GET, HEAD")])
            return refusal.send(environ, start_response)
        name = environ["PATH_INFO"].rpartition("/")[2]
        found = self._files.get(name) or self._read(name)
        if found is None:
            return Refusal(404, "There is no such file here.").send(environ, start_response)
        body, etag, mimetype = found
        response = Response(body, mimetype=mimetype)
        response.set_etag(etag)
        response.cache_control.public = True
        response.cache_control.max_age = MAX_AGE_S
        return response.make_conditional(Request(environ))(environ, start_response)

    def _read(self, name: str) -> tuple[bytes, str, str] | None:
        file = next((files[name] for files in self._listings() if name in files), None)
        if file is None:
            return None
        body = file.read_bytes()
        mimetype = mimetypes.guess_type(name)[0] or "application/octet-stream"
        self._files[name] = body, hashlib.sha256(body).hexdigest()[:32], mimetype
        return self._files[name]

    def _listings(self) -> Iterable[dict[str, Traversable]]:
        # only names that a folder lists: a path made of the request could lead out of it
        for folder in self._folders:
            yield {entry.name: entry for entry in folder.iterdir() if entry.is_file()}


@functools.cache
def _find_folder(package: str) -> Traversable:
    return importlib.resources.files(package) / "static"
