"""Models: parameters by name, which of them a pattern matches, MobileNetV2, and files of weights."""
