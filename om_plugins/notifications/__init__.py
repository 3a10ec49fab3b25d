"""Notifications: to browsers as events, and to notifier plugins."""
