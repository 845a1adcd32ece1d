"""What can be asked at the command line? One module a subject; each lists its commands, and `main` dispatches."""
