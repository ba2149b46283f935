"""The command line: ``asyncinfer infer | chat | engines | models``.

Rule: it uses asyncinfer as any stranger would. Answers, and nothing else, go to stdout; everything said about them goes
to stderr. Exit codes are in `exits`.
"""
