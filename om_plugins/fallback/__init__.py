"""Fallback: what answers in place of a view of the host app that failed."""
