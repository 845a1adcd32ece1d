"""From video to keypoints: cameras and files are decoded, people found by an ONNX model, and the pictures forgotten."""
