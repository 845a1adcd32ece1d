"""What happened, and what is happening now? A run as a page or a Rerun recording, and a live store as a console."""
