"""What is too slow in Python: compiled loops over plain arrays, without knowledge of stores and results."""
