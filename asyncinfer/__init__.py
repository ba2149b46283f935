"""asyncinfer."""
