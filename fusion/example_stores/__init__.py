"""Which stores come with the package? A folder each: stores as people know them, with a chain.toml for all of them."""
