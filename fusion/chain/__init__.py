"""How do many stores work together? The chain's book, shipping and reconciling, and batches of recordings."""
