"""Request to events: whatever opens a stream of events is an engine, and one pipeline serves them all."""
