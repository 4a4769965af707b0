"""A step as one CUDA graph: its kernels are recorded once and then started together.

A fast GPU finishes the small kernels of a step sooner than Python starts them one by one; then the step lasts as long
as Python needs. A graph takes this time away and computes the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

WARM_UPS = 3  # calls before the first recording: libraries choose their kernels, and what is computed once is computed


class Captured:
    """A function of tensors, replayed as a CUDA graph where the inputs are on a GPU and of the first call's shapes.

    The function must not wait for the device, and must do the same in every call until `forget`. Where inputs are
    something else, or a batch is smaller, it is simply called.

    Args:
        function: to a tensor; it may compute gradients, and change tensors in place.
        parameters: those of which it computes the gradients, anew in each call.
    """

    def __init__(self, function: Callable[..., Tensor], parameters: Sequence[nn.Parameter] = ()):
        self.function, self.parameters = function, list(parameters)
        self._calls = 0
        self._inputs: list[Tensor] = []  # where the graph reads
        self._output: Tensor | None = None  # where it writes
        self._gradients: list[Tensor | None] = []
        self._graph: torch.cuda.CUDAGraph | None = None

    def forget(self) -> None:
        """Record again at the next call; what the function reads beside its inputs may have been replaced."""
        self._graph = self._output = None
        self._gradients = []

    def __call__(self, *inputs: Tensor) -> Tensor:
        """As `function`.

        Raises:
            RuntimeError: the function does what a graph can't hold.
        """
        if not all(isinstance(given, Tensor) and given.is_cuda for given in inputs) or not self._fits(inputs):
            return self.function(*inputs)
        if self._calls < WARM_UPS:
            self._calls += 1
            with _other_stream():
                output = self.function(*inputs)
            output.record_stream(torch.cuda.current_stream())
            return output
        if self._graph is None:
            self._record()
        assert self._graph is not None
        assert self._output is not None
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        for parameter, gradient in zip(self.parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._output.clone()

    def _fits(self, inputs: Sequence[Tensor]) -> bool:
        if not self._inputs:
            self._inputs = [given.clone() for given in inputs]
        return all(own.shape == given.shape for own, given in zip(self._inputs, inputs, strict=True))

    def _record(self) -> None:
        """Nothing is computed here, so that state which the function changes is not changed once too often."""
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads, such as the one that pins batches, go on with what they do
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._output = self.function(*self._inputs)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise RuntimeError(
                f"This step can't be recorded as a CUDA graph ({reason}); set CUDA_GRAPH to False."
            ) from error
        self._gradients = [parameter.grad for parameter in self.parameters]
        self._graph = graph


@contextmanager
def _other_stream() -> Iterator[None]:
    """Before a recording, work must not run on the default stream, or autograd would tie the recording to it."""
    current, other = torch.cuda.current_stream(), torch.cuda.Stream()
    other.wait_stream(current)
    with torch.cuda.stream(other):
        yield
    current.wait_stream(other)
