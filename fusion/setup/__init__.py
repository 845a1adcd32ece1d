"""Is this shop ready to open? Calibration, checks of stores, recordings and machines, and a store to start from."""
