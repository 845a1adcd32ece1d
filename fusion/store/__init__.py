"""What does a store consist of? Its folder as frozen models: floor, gates, cameras, plates, products and prices."""
