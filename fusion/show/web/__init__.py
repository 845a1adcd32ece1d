"""What stands between a browser and any of the pages: connections, guards, serving."""
