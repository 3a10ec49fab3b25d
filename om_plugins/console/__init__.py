"""This package's own pages, under ``OM_PREFIX``: a plain WSGI app for any framework."""
