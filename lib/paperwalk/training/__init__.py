"""Training a model: the loop, checkpoints that survive a kill, several processes."""

from paperwalk.training.checkpoints import TrainingError
from paperwalk.training.loop import TrainConfig, lr_at, train

__all__ = ["TrainConfig", "TrainingError", "lr_at", "train"]
