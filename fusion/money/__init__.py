"""Money: what a visit costs, the books that record it, how it is paid, and what the customer receives."""
