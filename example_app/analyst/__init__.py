"""The analyst: an OpenAI-compatible HTTP service that answers questions about this machine.

It runs in a process of its own (``python -m example_app.analyst``). Unlike the in-process analysis
it understands follow-up questions, compares two metrics and keeps the last twenty minutes.
"""
