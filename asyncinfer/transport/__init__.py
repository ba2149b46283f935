"""HTTP, and nothing but HTTP: the only room that imports an HTTP library."""
