"""One store's process: where its observations come from, how they are served, and what survives when it is killed."""
