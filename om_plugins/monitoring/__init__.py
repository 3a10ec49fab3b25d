"""Watching: requests, process, engines and cache, over all workers; trends and alerts."""
