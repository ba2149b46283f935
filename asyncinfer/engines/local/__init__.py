"""What all local engines share, so that they behave alike: their life, the request as plain values, text made events.

Rule: no library of any engine is known here. All but `engine` is pure, and waits for nothing.
"""
