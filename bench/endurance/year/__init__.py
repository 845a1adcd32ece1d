"""A year of shops in a night: the whole chain simulated from one seed, and an auditor that knows the truth."""
