"""What is done with a model after its training: predictions, evaluation, export, model card."""
