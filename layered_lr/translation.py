"""``translate``: a torch model as a OneFlow module, for a training loop of the user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.backend.loading import load_backend
from layered_lr.errors import SpecError
from layered_lr.guesses import explain_names
from layered_lr.models.nn_modules import Module, dtype_of, framework_of, parameters_of
from layered_lr.registry import FRAMEWORKS, load_attribute, load_tracer


@explain_names("loop")
def translate(module: Module, example: Any = None) -> Module:
    """Make a OneFlow module of a torch module: the same names, weights and buffers, and the same forward pass.

    ``run``, ``resume`` and ``compare`` do this by themselves. The weights are copies, and the new module goes its own
    way from then on. It trains in eager mode and in a ``oneflow.nn.Graph``. Its forward pass is what torch's was when
    it was traced: for images of one shape, in any number. What the model returns may be a tuple or a dictionary. The
    torch module is kept, and traced again for a batch of another number of images: leave it as it is.

    What OneFlow cannot compute as torch does is refused: the error names the operator, the module and the line. A
    module that is returned has answered an example in evaluation mode as torch does, and made a backward pass.

    Args:
        module: A ``torch.nn.Module`` object. It is not changed.
        example: A batch like those to come, such as an array or a tensor of shape (N, C, H, W), or a tuple of the
            model's inputs. Only shapes and dtypes count; the first axis is the batch's. Floating-point examples are
            taken in the model's dtype. Inputs of another shape are refused later. None traces the model at its first
            batch, and again for each other shape. Call it once before a graph is made of it.

    Returns:
        A ``oneflow.nn.Module`` on the CPU, in the modes that the module was in.

    Raises:
        SpecError: This is no torch module, or it fails on such an example.
        Unsupported: OneFlow cannot compute what it does, or it cannot be traced.
        BackendUnavailable: OneFlow does not work on this machine.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> import layered_lr as ll
        >>> body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> net = torch.nn.Sequential(body, torch.nn.Linear(144, 2))
        >>> translated = ll.translate(net, np.zeros((2, 3, 8, 8)))
        >>> [name for name, _ in translated.named_parameters()]
        ['0.0.weight', '0.0.bias', '1.weight', '1.bias']
        >>> import oneflow
        >>> tuple(translated(oneflow.zeros(5, 3, 8, 8)).shape)
        (5, 2)
    """
    framework = framework_of(module)
    if framework != "torch":
        kind = f"the class {module.__name__}" if isinstance(module, type) else f"a {type(module).__name__}"
        what = "a OneFlow module already" if framework == "oneflow" else kind
        raise SpecError(f"translate: module is {what}; must be a torch.nn.Module object, such as translate(MyNet()).")
    parameters = [parameter for parameter, _ in parameters_of(module)]
    given = () if example is None else example if isinstance(example, tuple) else (example,)
    dtype = next((each.dtype for each in parameters if each.dtype.startswith("float")), "float32")
    arrays = tuple(_read_example(one, dtype) for one in given)
    if example is not None and not arrays:
        raise SpecError("translate: example=() has no inputs; give a batch, or leave it out.")
    load_backend("oneflow-eager", "cpu")
    tracer, build = load_tracer("torch"), load_attribute(str(FRAMEWORKS["oneflow"].builder))
    model = tracer.copy_to_cpu(module)
    return build(tracer.trace_model(model, arrays), None if arrays else tracer.make_retrace(model))


def _read_example(example: Any, dtype: str) -> NDArray[Any]:
    """Bring an example to an array; a floating one to the model's dtype."""
    kind = type(example).__name__
    try:
        tensor = hasattr(example, "detach") and hasattr(example, "dtype")
        if tensor and dtype_of(example) == "bfloat16":
            example = example.float()
        array = np.asarray(example.detach().cpu().numpy() if tensor else example)
    except Exception as error:  # whatever the object raises
        raise SpecError(f"translate: example is a {kind}, which cannot become an array: {error}") from None
    if array.dtype.kind not in "fiub" or array.ndim == 0 or 0 in array.shape:
        raise SpecError(
            f"translate: example is a {kind} of shape {array.shape} and dtype {array.dtype}; must be a batch of "
            "numbers with at least one input, such as an array of shape (2, 3, 32, 32)."
        )
    return array.astype(dtype) if array.dtype.kind == "f" else array
