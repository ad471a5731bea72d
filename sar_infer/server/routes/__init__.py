"""The routes, one file for each protocol: its requests, its answers, and what happens in between."""
