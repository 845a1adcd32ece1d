"""Streams that cameras, boxes, scales and readers of other makers already send, as observations of a store."""
