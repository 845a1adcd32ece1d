"""Do the tests notice a deliberate fault in the code? One at a time, in a copy: `python -m bench mutation`."""
