"""The minute of a small store that the tests of serving use, for its till as well."""

from live.conftest import day, recording

__all__ = ["day", "recording"]
