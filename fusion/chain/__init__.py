"""Many stores: their processes, their common book, work over many recordings."""
