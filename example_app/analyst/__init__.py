"""The analyst: an OpenAI-compatible HTTP service that knows this machine.

It runs in a process of its own (``python -m example_app.analyst``) and does what the in-process
analysis cannot: it follows a talk, compares two metrics and remembers the last twenty minutes.
"""
