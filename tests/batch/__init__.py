"""Tests of batch files: rows, journal, assembly, resume."""
