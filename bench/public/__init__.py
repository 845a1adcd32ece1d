"""How the engine does on sets that others have published, beside what people use for the same work."""
