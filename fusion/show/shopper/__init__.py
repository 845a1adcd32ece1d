"""The shopper's pages and the screens of a store: a process of its own in the public network."""
