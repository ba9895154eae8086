"""Let Optuna choose the rate of the head and how much slower the backbone learns; bad trials end early."""

import importlib.util
import os
from typing import Any

import layered_lr as ll

MAX_STEPS = int(os.environ.get("MAX_STEPS", "0")) or None


def train(trial: Any) -> float:
    """One trial: the best accuracy of a run with the chosen rates."""
    import optuna

    class EndBadTrials(ll.Callback):
        def on_evaluation(self, event: Any) -> None:
            trial.report(event.accuracy, event.run.step)
            if trial.should_prune():
                event.run.stop("the other trials are better")

    lr = trial.suggest_float("lr", 1e-3, 0.3, log=True)
    scale = trial.suggest_float("lr_scale", 0.01, 1.0, log=True)
    spec = ll.Spec(ll.SGD(lr, momentum=0.9), [ll.Group("backbone", lr_scale=scale)], ll.CosineDecay())
    result = ll.run(spec, epochs=3, max_steps=MAX_STEPS, callbacks=[EndBadTrials()])
    if any(event["event"] == "stopped" for event in result.events):
        raise optuna.TrialPruned
    return float(result.accuracies.max())


if importlib.util.find_spec("optuna") is None:
    print("This example needs Optuna: pip install optuna")
else:
    import optuna

    study = optuna.create_study(direction="maximize")
    study.optimize(train, n_trials=2 if MAX_STEPS else 20)
    print(study.best_params, study.best_value)
