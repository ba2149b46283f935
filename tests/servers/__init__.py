"""Real servers on loopback for every test of the project.

* `canned`: answers with lists of byte strings, delays, resets; records what the client did, and when.
* `provider`: a fake OpenAI-compatible provider with knobs, fast enough for a million rows; also a process of its own.
* `proxy`: a forward proxy (absolute form and CONNECT).
* `certificates`: a throwaway certificate authority.

Each runs in a thread with a loop of its own, so tests on asyncio and on trio use it alike::

    with CannedServer(answer(b'{"ok": true}')) as server:
        ...  # server.url, server.requests, server.connections
"""
