"""Engine routes: paths of a WSGI application that an engine chain answers."""
