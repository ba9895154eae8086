"""Fine-tune pretrained weights with the recipe ``fine-tune``: the head first, then each layer at a rate of its own.

DATA is an .npz of images with x_train, y_train, x_test, y_test; WEIGHTS a file of mobilenet_v2's weights, or the name
of some that torchvision downloads, such as IMAGENET1K_V1. Without them it trains a new model on the digits.
"""

import os

import layered_lr as ll

recipe = ll.load_recipe("fine-tune")
data = os.environ.get("DATA", "digits")
weights = os.environ.get("WEIGHTS", "")
options = {
    **recipe.run,
    "data": data,
    "pretrained": weights or False,
    "image_size": 96 if weights else None,  # images of 32 x 32 are small for weights that saw 224 x 224
}

print(ll.plan(recipe.spec, **options))  # the rates of all layers, before anything trains
result = ll.run(
    recipe.spec,
    **options,
    augment=bool(weights),  # crops and mirror images: good for photographs, wrong for digits
    max_steps=int(os.environ.get("MAX_STEPS", "0")) or None,  # MAX_STEPS=2 makes a tiny run of it
)
print(result)
print("test accuracy after each epoch:", *result.accuracies.round(3))
