"""Fills a mirror of the official release sites from source, through the ordinary package registries.

A developer's tool, run by ``make mirror``; the product only knows the layout (``imagegen.fetch.sources``).
"""
