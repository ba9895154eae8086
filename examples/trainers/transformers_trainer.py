"""Hugging Face's Trainer: a tiny BERT, deeper layers at higher rates. See docs/trainers.md."""

from __future__ import annotations

import os
import tempfile

import torch
import transformers

import layered_lr as ll
from layered_lr_torch.integrations import transformers as ll_transformers

configuration = transformers.BertConfig(
    vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=2
)
model = transformers.BertForSequenceClassification(configuration)
spec = ll.Spec(
    ll.AdamW(1e-3),
    groups=[
        ll.Group("bert.embeddings", lr_scale=0.25),
        ll.Group("bert.encoder.layer.0", lr_scale=0.5),
        ll.Group("bert.encoder.layer.1", lr_scale=0.75),
    ],
    schedule=ll.CosineDecay(warmup_steps=2),
    no_weight_decay="1d",
)
generator = torch.Generator().manual_seed(0)
rows = [
    {"input_ids": torch.randint(64, (12,), generator=generator), "labels": torch.tensor(number % 2)}
    for number in range(64)
]
with tempfile.TemporaryDirectory() as folder:
    arguments = transformers.TrainingArguments(
        folder,
        max_steps=int(os.environ.get("MAX_STEPS", "20")),
        max_grad_norm=0,  # else the Trainer clips at 1.0
        logging_steps=2,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=rows)
    ll_transformers.use_spec(trainer, spec)
    trainer.train()
print(trainer.lr_scheduler.plan)
