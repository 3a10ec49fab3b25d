"""This package's own pages, under ``OM_PREFIX``: a plain WSGI app that works under any framework."""
