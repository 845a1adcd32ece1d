"""How does one store run from door to receipt: simulated, replayed or live? Sources, fronts and sinks of one run."""
