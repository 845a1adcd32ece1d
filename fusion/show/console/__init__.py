"""The store as a live page: the runner's feed, the people who may sign in, and the server with the review queue."""
