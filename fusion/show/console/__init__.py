"""The shop as a page: what a runner tells while it runs (`feed`), who may look (`users`), and the page (`server`)."""
