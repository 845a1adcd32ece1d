"""What moved, and whose it is: shelf events from weights, the people behind them, and the carts that follow."""
