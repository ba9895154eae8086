"""The names that other libraries use, and what each is called here: plain tables.

The names are those of torch, timm, Keras, Hugging Face, Lightning, fastai, MMEngine, Paddle and OneFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Guesses: TypeAlias = Mapping[str, str]
"""Our name, or a sentence of advice, to the names that mean it elsewhere, with spaces between them."""

_FREEZE = (
    "A group does not freeze: say Spec(..., phases=ll.phases.freeze_for_good('features')), or a Phase(frozen=...)."
)
_OF_OPTIMIZER = "It belongs to the optimizer, such as ll.Spec(ll.SGD(lr=0.1, momentum=0.9))."
_OF_GROUP = "It belongs to a group, such as ll.Group('features', lr_scale=0.1)."
_OF_RUN = "It belongs to the run, such as ll.run(spec, model=..., data=..., epochs=6)."
_OF_SPEC = "It belongs to the spec, such as ll.run(ll.Spec(ll.SGD(lr=0.1), [ll.Group('features', lr_scale=0.1)]))."
_CLIPPING = "Clipping belongs to the spec: ll.Spec(..., clip_grad_norm=1.0) or clip_grad_value=..."
_NO_DECAY = "Say ll.Spec(..., no_weight_decay='1d') for every bias and norm, or weight_decay=0.0 in a group."
_LAYER_DECAY = "It belongs to the spec: ll.Spec(ll.AdamW(1e-3), layer_decay=0.8)."
_AVERAGE = "A moving average of the weights belongs to the run: ll.run(spec, ema_decay=0.999)."
_WARMUP = "A warm-up is a schedule: schedule=ll.Warmup(500), or ll.CosineDecay(warmup_steps=500)."
_LOADER = (
    "Name parameters by pattern, not by object: ll.Group('features'). The model comes with ll.compile(spec, model)."
)

_HYPERPARAMETERS: Guesses = {
    "lr": "learning_rate base_lr initial_lr init_lr rate max_lr peak_lr eta lrs",
    "weight_decay": "wd decay l2 weight_decay_rate weight_decay_coeff regularization_coeff decay_mult wd_mult",
    "momentum": "mu momentum_factor",
    "betas": "beta1 beta2 beta_1 beta_2 b1 b2 adam_beta1 adam_beta2 mom sqr_mom",
    "eps": "epsilon adam_epsilon",
    "nesterov": "use_nesterov nesterov_momentum",
    "alpha": "rho decay_rate smoothing_constant sqr_mom",
    "rho": "alpha decay_rate",
    "trust_coefficient": "trust_coeff lars_coeff lars_coefficient eta",
    "initial_accumulator_value": "initial_accumulator",
    "maximize": "maximise",
}

ARGUMENTS: Mapping[str, Guesses] = {
    "Group": {
        "lr_scale": "lr_mult lr_multiplier lr_multiplicator lr_factor lr_ratio multiplier mult scale factor",
        "match": "pattern patterns regex name_pattern prefix path glob keys custom_keys",
        _LOADER: "params parameters param named_parameters modules module layers layer model param_names weights",
        "schedule": "scheduler lr_scheduler lr_schedule lr_config sched param_scheduler lr_lambda",
        "name": "label group group_name id key title",
        _FREEZE: "frozen freeze trainable requires_grad train unfreeze freeze_at is_frozen untrainable trained",
        _NO_DECAY: ("no_decay no_weight_decay bias_decay norm_decay bias_decay_mult norm_decay_mult bypass_norm_decay"),
        _LAYER_DECAY: "layer_decay layer_decay_rate layerwise_decay llrd layer_id depth",
        _CLIPPING: (
            "clip clip_grad clip_grad_norm clip_grad_value max_norm max_grad_norm clipnorm clipvalue clip_norm"
        ),
        _WARMUP: "warmup warmup_steps warmup_epochs num_warmup_steps warmup_ratio",
        "optimizer": "optim opt optimizer_type",
        **_HYPERPARAMETERS,
    },
    "Spec": {
        "groups": (
            "group param_groups parameter_groups params_groups layers layer_groups parameters params splitter "
            "paramwise_cfg custom_keys"
        ),
        "optimizer": "optim opt opt_func optimizer_type optimizer_class optim_wrapper",
        "schedule": (
            "scheduler lr_scheduler lr_schedule lr_config sched schedulers param_scheduler learning_rate_schedule"
        ),
        "phases": (
            "phase stages stage timeline frozen freeze unfreeze trainable freeze_layers freeze_epochs frozen_stages"
        ),
        "no_weight_decay": (
            "no_decay bias_decay no_bias_decay decay_exclude exclude_from_weight_decay bypass_norm_decay "
            "wd_exclude filter_bias_and_bn"
        ),
        "clip_grad_norm": (
            "clip clip_grad clip_norm max_norm max_grad_norm clipnorm global_clipnorm grad_clip gradient_clip "
            "gradient_clip_val gradient_clip_norm grad_clip_norm clip_gradients clip_max_norm"
        ),
        "clip_grad_value": "clipvalue clip_value gradient_clip_value grad_clip_value",
        _OF_OPTIMIZER: "lr learning_rate base_lr initial_lr momentum weight_decay wd betas eps nesterov alpha rho",
        _OF_GROUP: "lr_scale lr_mult match lr_factor",
        _WARMUP: "warmup warmup_steps warmup_epochs num_warmup_steps warmup_ratio",
        "layer_decay": "layer_decay_rate layerwise_decay llrd layer_lr_decay",
        _AVERAGE: "ema ema_decay model_ema",
        _OF_RUN: (
            "epochs max_steps batch_size model data dataset seed backend device accumulate_steps dropout "
            "total_steps steps_per_epoch steps num_epochs train_loader callbacks checkpoints save progress loss "
            "metrics early_stop precision pretrained head mix"
        ),
    },
    "Phase": {
        "until": (
            "epochs epoch steps end stop duration length n_epochs num_epochs num_steps max_epochs to at for_epochs"
        ),
        "frozen": "freeze frozen_layers freeze_layers froze frozen_groups frozen_stages",
        "trained": ("train trainable unfreeze unfrozen train_layers unfreeze_layers trains training trainable_layers"),
        "schedule": "scheduler lr_scheduler lr_schedule sched",
        "optimizer": "optim opt opt_func",
        "groups": "group param_groups parameter_groups layers",
        "clip_grad_norm": "clip clip_grad max_norm max_grad_norm clipnorm grad_clip gradient_clip_val",
        "clip_grad_value": "clipvalue clip_value",
        "batch_norm": "bn freeze_bn train_bn bn_eval norm_eval batchnorm",
        "momentum_warmup": "warmup_momentum",
        "Give the rate to an optimizer or to groups of the phase: Phase('1 epoch', optimizer=ll.SGD(0.1)) or "
        "groups=[ll.Group('head', lr=0.01)].": "lr learning_rate lr_scale lr_mult momentum betas rate",
        "A phase begins where the one before it ends.": "start begin since first from_epoch start_epoch",
        _WARMUP: "warmup warmup_steps warmup_epochs",
    },
    "optimizer": {
        "An optimizer here is a setting without parameters: leave them out. ll.compile(spec, model) makes the "
        "framework's own for a model.": (
            "params parameters param param_groups named_parameters parameter_list model module"
        ),
        _OF_GROUP: "lr_scale lr_mult layer_decay lr_factor",
        _CLIPPING: (
            "clip clip_grad clip_grad_norm clip_grad_value max_norm max_grad_norm clipnorm clipvalue clip_norm "
            "global_clipnorm grad_clip grad_averaging gradient_clip_val"
        ),
        _AVERAGE: "use_ema ema_momentum ema_decay ema",
        _NO_DECAY: "no_decay no_weight_decay exclude_from_weight_decay apply_decay_param_fun bias_decay",
        "A schedule belongs to the spec: ll.Spec(optimizer, schedule=ll.StepLR(30)).": (
            "schedule scheduler lr_scheduler lr_schedule lr_decay_steps warmup warmup_steps"
        ),
        "The library says this to torch where it is needed: leave it out.": (
            "capturable differentiable set_to_none do_bias_correction correct_bias no_deprecation_warning name "
            "defaults jit_compile bias_correction1 contiguous_params lazy_mode multi_precision"
        ),
        "decoupled_weight_decay": "decoupled decouple_weight_decay decoupled_decay",
        **_HYPERPARAMETERS,
    },
    "schedule": {
        "A schedule here is a setting without an optimizer: leave it out, and give the schedule to "
        "ll.Spec(optimizer, schedule=...) or to a group.": "optimizer optim opt optimizers",
        "A schedule has no state: ll.resume and ll.load_state go on at the right update. Leave it out.": (
            "last_epoch last_step start_epoch last_batch_iteration initial_step"
        ),
        "torch has dropped it too: leave it out, and print(plan) to see all rates.": "verbose",
        "The rate to begin with is the optimizer's or the group's: ll.SGD(lr=0.1).": (
            "lr base_lr initial_lr initial_learning_rate learning_rate init_lr peak_value init_value lr_init"
        ),
        "total_steps": (
            "num_training_steps max_steps n_iter total_iters max_iters num_steps steps T_max t_initial "
            "decay_steps total_epochs max_epochs epochs"
        ),
        "total_iters": (
            "num_training_steps max_steps max_iters warmup_iters warmup_steps num_warmup_steps steps total_steps "
            "T_max max_decay_steps warmup iters"
        ),
        "T_max": (
            "t_initial total_steps max_steps total_iters max_iters num_training_steps steps decay_steps tmax epochs"
        ),
        "T_0": "t_initial first_decay_steps first_cycle_steps cycle_steps t0",
        "T_mult": "t_mul cycle_mul cycle_mult m_mul",
        "step_size": "decay_t decay_steps decay_epochs period every interval step steps lr_step_size",
        "milestones": "decay_t boundaries steps decay_milestones decay_epochs step_epochs schedule lr_steps",
        "gamma": "decay_rate factor decay_factor cycle_decay mult lr_gamma alpha lr_decay",
        "factor": "decay_rate gamma warmup_factor decay_factor",
        "start_factor": "warmup_factor warmup_start_factor warmup_ratio init_factor",
        "eta_min": "lr_min min_lr end_lr min_value end_learning_rate final_lr",
        "min_lr": "eta_min lr_min end_lr",
        "power": "poly_power decay_power degree",
        "warmup_steps": "num_warmup_steps warmup_t warmup_epochs warmup_iters warmup n_warmup warmup_length",
        "lr_lambda": "function fn f lambda_ lambdas lr_func lr_lambdas schedule_func",
        "schedulers": "schedules scheduler schedule",
        "values": "rates lrs table lr_list",
        "max_lr": "lr_max max_learning_rate",
        "div_factor": "div divide initial_div",
        "final_div_factor": "div_final final_div",
        "pct_start": "pct warmup_pct warmup_ratio",
        "metric": "monitor metrics quantity",
        "patience": "patience_t patience_epochs",
        "unit": (
            "by_epoch t_in_epochs interval convert_to_iter_based step_on_epoch per_epoch step_per_batch "
            "step_on_batch epoch_based"
        ),
        "every_step": "per_step per_update per_batch on_batch",
    },
    "run": {
        "model": "net network arch architecture module model_name nn classifier",
        "data": (
            "dataset datasets train_loader dataloader dataloaders loader train_dataloader train_dataloaders "
            "train_dataset train_data train_ds dls data_module datamodule x train_set trainset loaders"
        ),
        "data_root": "data_dir root data_path dataset_root dataset_dir data_folder",
        "epochs": (
            "num_epochs n_epochs max_epochs num_train_epochs epoch nb_epoch nb_epochs n_epoch num_epoch total_epochs"
        ),
        "max_steps": (
            "max_iters max_iter iterations total_steps steps num_steps n_steps num_iterations n_iters "
            "num_training_steps train_steps"
        ),
        "batch_size": (
            "bs batch train_batch_size per_device_train_batch_size batchsize mini_batch_size batch_size_train"
        ),
        "seed": "random_seed random_state manual_seed rng rng_seed",
        "dropout": "drop drop_rate dropout_rate dropout_p drop_prob",
        "device": "gpu gpus accelerator devices cuda use_cuda device_type gpu_id no_cuda device_ids",
        "augment": ("augmentation aug augmentations transform transforms train_transform data_augmentation batch_tfms"),
        "accumulate_steps": (
            "accum accum_steps accumulation_steps grad_accum_steps gradient_accumulation_steps "
            "accumulate_grad_batches grad_accumulation grad_accum accumulation"
        ),
        "ema_decay": "ema model_ema model_ema_decay use_ema ema_momentum average",
        "precision": "amp fp16 bf16 half mixed_precision use_amp use_bf16 bfloat16 float64 double native_amp",
        "initial_weights": (
            "weights init_weights load_from init_from state_dict pretrained_weights initial_checkpoint "
            "weights_path start_weights"
        ),
        "checkpoints": (
            "output_dir save_dir log_dir out_dir work_dir default_root_dir checkpoint checkpoint_path "
            "checkpoint_folder folder logdir run_dir ckpt_dir checkpoints_dir"
        ),
        "save": "save_path output out result save_to result_path save_file",
        "progress": "verbose progress_bar show_progress enable_progress_bar disable_tqdm quiet silent use_tqdm",
        "callbacks": "callback cbs hooks hook listeners on_epoch_end",
        "backend": "framework engine backend_name library platform",
        "divergence": "on_nan nan detect_anomaly terminate_on_nan skip_nan on_diverge",
        "Training goes on with ll.resume(folder), the folder that was checkpoints=.": (
            "resume resume_from ckpt_path resume_from_checkpoint auto_resume continue_from"
        ),
        "loss": "loss_fn criterion loss_func loss_function objective",
        "It belongs to the loss: loss=ll.CrossEntropy(label_smoothing=0.1, class_weights=[...]).": (
            "label_smoothing smoothing class_weights class_weight weight reduction"
        ),
        "metrics": "metric eval_metrics compute_metrics metric_fn",
        "early_stop": "early_stopping early_stopper stop_early",
        "It belongs to early stopping: early_stop=ll.EarlyStop('accuracy', patience=3).": (
            "patience early_stopping_patience monitor min_delta restore_best_weights load_best_model_at_end"
        ),
        "It belongs to the mixing of images: mix=ll.Mix(mixup=0.2, cutmix=1.0).": (
            "mixup cutmix mixup_alpha cutmix_alpha mix_up cut_mix"
        ),
        "initialise": "init initializer initialize initialiser init_method weight_init kernel_initializer",
        "image_size": "img_size input_size resize image_shape imgsz resolution crop_size",
        "head": "new_head classifier_path head_name",
        "The head gets as many outputs as the data has classes: leave it out.": (
            "num_classes n_classes num_labels classes nb_classes out_features"
        ),
        "sync_batch_norm": "sync_bn sync_batchnorm syncbn use_sync_bn",
        "shard": "fsdp zero sharded fully_shard fsdp2",
        "log": "logger loggers tensorboard report_to wandb mlflow",
        "dry_run": "fast_dev_run debug sanity_check",
        "A recipe is read first: recipe = ll.load_recipe('head-first'); ll.run(recipe.spec, **recipe.run).": (
            "recipe config cfg args config_file yaml toml"
        ),
        "Images are decoded in threads, as many as there are processors: leave it out.": (
            "num_workers workers pin_memory prefetch prefetch_factor persistent_workers dataloader_num_workers"
        ),
        "The order of the images is drawn from the seed, anew in each epoch: leave it out.": "shuffle sampler",
        _OF_SPEC: (
            "lr learning_rate optimizer optim opt schedule scheduler lr_scheduler groups param_groups "
            "weight_decay wd momentum lr_scale phases frozen freeze no_weight_decay layer_decay warmup "
            "warmup_steps lr_mult"
        ),
        _CLIPPING: (
            "clip clip_grad clip_grad_norm clip_grad_value max_norm max_grad_norm gradient_clip_val grad_clip clipnorm"
        ),
    },
    "compare": {
        "backends": "backend frameworks engines",
        "steps": "num_steps n_steps updates iterations",
        "precision": "dtype",
    },
    "loop": {
        "total_steps": (
            "epochs max_steps steps num_steps num_training_steps max_iters iterations total_iters T_max length"
        ),
        "steps_per_epoch": (
            "steps_in_epoch batches_per_epoch len_loader iters_per_epoch updates_per_epoch epoch_length"
        ),
        "spec": "optimizer optim config groups schedule",
        "model": "net network module parameters params",
        "parameters": "params model named_parameters module net",
        "path": "folder file directory dir f filename save_dir",
        "source": "path folder file directory dir f state_dict checkpoint state",
        "optimizer": "optim opt",
        "scheduler": "schedule lr_scheduler sched",
        _OF_OPTIMIZER: "lr learning_rate momentum weight_decay",
    },
}
"""By what takes the arguments."""

TYPES: Guesses = {
    "SGD with momentum=0.9": "Momentum MomentumOptimizer sgdm sgd_momentum MomentumSGD Nesterov nag",
    "AdamW": (
        "adamw_torch adamw_hf adamw_torch_fused AdamWeightDecay AdamWOptimizer FusedAdamW adamw_bnb_8bit decoupled_adam"
    ),
    "Adam": "AdamOptimizer FusedAdam",
    "SGD": "SGDOptimizer GradientDescent GradientDescentOptimizer",
    "RMSprop": "rms RMSPropOptimizer rmsproptf",
    "LAMB": "FusedLAMB nvlamb lambc",
    "LARS": "larc lars_sgd",
    "CosineAnnealingLR or CosineDecay": (
        "cosine CosineAnnealing CosineLR CosineDecayLR cos cosine_annealing CosineLRScheduler CosineSchedule "
        "cosine_decay cosine_decay_schedule"
    ),
    "CosineDecay(warmup_steps=...)": (
        "WarmupCosine get_cosine_schedule_with_warmup cosine_with_warmup WarmupCosineLR "
        "LinearWarmupCosineAnnealingLR warmup_cosine_decay_schedule"
    ),
    "CosineAnnealingWarmRestarts": (
        "SGDR cosine_with_restarts CosineRestarts CosineAnnealingRestarts WarmRestarts "
        "cosine_with_hard_restarts CosineDecayRestarts"
    ),
    "StepLR": "step StepDecay StepLRScheduler StepDecayLR steplr exponential_staircase",
    "MultiStepLR": (
        "multistep MultiStepLRScheduler PiecewiseConstant PiecewiseConstantDecay MultiFactor PiecewiseConstantLR"
    ),
    "ExponentialLR": "exponential ExponentialDecay ExponentialDecayLR exp",
    "LinearLR or Warmup": ("linear LinearWarmup WarmUpLR WarmupLR GradualWarmup linear_with_warmup LinearLRScheduler"),
    "PolynomialLR": "poly PolyLR PolynomialDecay polynomial PolyLRScheduler poly_lr",
    "OneCycleLR": "onecycle one_cycle 1cycle OneCyclePolicy fit_one_cycle OneCycleScheduler",
    "CyclicLR": "cyclic CLR triangular CyclicalLearningRate TriangularCLR",
    "ReduceLROnPlateau": "plateau ReduceOnPlateau PlateauLRScheduler reduce_on_plateau",
    "InverseSqrt": "noam NoamLR NoamDecay inverse_sqrt InverseSquareRoot rsqrt",
    "WSD": "trapezoidal warmup_stable_decay TrapezoidalLR",
    "Constant": "const NoLR identity none constant_schedule fixed",
    "Function": "rate_function callable custom LearningRateSchedule LearningRateScheduler",
    "LambdaLR": "lambda",
    "Phase": "Stage FreezePhase BaseFinetuning GradualUnfreezing FreezeCallback BackboneFinetuning",
    "Group": "ParamGroup ParameterGroup Layer LayerGroup param_group",
    "Spec": "Config OptimWrapper Experiment",
    "run": "train fit Trainer Learner trainer",
    "compile": (
        "make_optimizer create_optimizer build_optimizer get_optimizer param_groups_layer_decay "
        "create_optimizer_v2 make_scheduler create_scheduler prepare wrap"
    ),
    "load_recipe": "from_toml load_config read_recipe",
    "load_state": "load restore load_checkpoint",
    "save_state": "save checkpoint save_checkpoint",
    "ReduceLROnPlateau or StepLR": "LRScheduler _LRScheduler Scheduler lr_scheduler",
    "SGD or AdamW": "optim optimizers",
}
"""Of classes and functions."""
