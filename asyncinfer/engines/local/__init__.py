"""What all local engines share, so that they behave alike: the request read as plain values, and text made events.

Rule: pure; no library of any engine is known here, and nothing waits.
"""
