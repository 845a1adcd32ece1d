"""What will the receipt be? An engine that runs ahead of the one that waits for late messages."""
