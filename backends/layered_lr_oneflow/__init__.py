"""layered_lr's backends ``oneflow-eager`` and ``oneflow-graph``, for OneFlow 0.9."""
