"""Bytes to events and events to bytes, and nothing else (sans-IO).

Rule: this room imports no anyio, asyncio, HTTP library, ``os`` or ``time``. A codec is a pair of pure functions and a
decoder object that is fed bytes; it never waits, never logs and never knows which provider it speaks to: what differs
between providers of one format is a value in the `Dialect`.
"""
