"""Callbacks that write down what a run does: CSV, JSON lines, TensorBoard, Weights & Biases, MLflow."""
