"""What is read and written: recordings, results, calibrations and detections of other programs, atomic replacement."""
