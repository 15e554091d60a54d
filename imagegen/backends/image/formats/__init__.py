"""Disk formats: one module a format, each turning the raw disk into what a platform takes, with stable
bytes.
"""
