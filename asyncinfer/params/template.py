"""Text with a ``${...}`` that is meant: on its way to a file it is not escaped."""

from __future__ import annotations


class Template(str):
    """Text that is written to YAML as it stands."""

    __slots__ = ()
