"""Gates: who may come in, and under what name the rest of the system knows them."""
