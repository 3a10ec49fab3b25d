"""Monitoring: counts requests, watches engines and the process, and fires alerts."""
