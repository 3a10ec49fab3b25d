"""Telling people: the centre that queues notifications and hands them to notifiers."""
