"""Delivery: how notifications reach notifiers whose network may be away for hours."""
