"""Multinomial logistic regression with an L2 penalty, by scikit-learn or by torch, and the search for its strength.

Nothing here knows CLIP, a configuration or a data loader. The objective is scikit-learn's, the bias is not penalised:

    C · Σ_i CE(W f_i + b, y_i) + ½ ‖W‖²
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SOLVERS = ("sklearn", "torch")
TOLERANCE = 1e-4  # largest entry of the gradient of the objective over C·n at the end, scikit-learn's default
HISTORY = 10  # steps that L-BFGS remembers, as in SciPy
GRID = (6, 4, 2, 0, -2, -4, -6)  # log10 C; largest first, so that the largest of equals is the first
BISECTIONS = 8


@dataclass(frozen=True)
class LinearHead:
    """A solved head."""

    weight: Tensor  # [C, d], fp32
    bias: Tensor  # [C], fp32
    iterations: int  # of L-BFGS

    def correct(self, features: Tensor, label: Tensor) -> int:
        """Number of rows of `features` [n, d] whose largest logit is that of `label` [n]."""
        return int((F.linear(features, self.weight, self.bias).argmax(dim=1) == label).sum())


def objective(weight: Tensor, bias: Tensor, features: Tensor, label: Tensor, c: float) -> Tensor:
    """C · Σ CE + ½ ‖W‖², 0-d."""
    return c * F.cross_entropy(F.linear(features, weight, bias), label, reduction="sum") + weight.square().sum() / 2


def fit(
    features: Tensor,
    label: Tensor,
    n_cls: int,
    c: float,
    solver: str,
    max_iter: int = 1000,
    tolerance: float = TOLERANCE,
) -> LinearHead:
    """Minimise the objective from zero, in double precision.

    Args:
        features: [n, d]; torch computes where they lie.
        label: [n], each of 0..n_cls-1 at least once, n_cls at least 2.
        c: C, the inverse strength of the penalty.
        solver: one of SOLVERS.
        max_iter: iterations of L-BFGS, at which it stops wherever it is.
        tolerance: see TOLERANCE.
    """
    solve = _fit_sklearn if solver == "sklearn" else _fit_torch
    weight, bias, iterations = solve(features.double(), label, n_cls, c, max_iter, tolerance)
    return LinearHead(weight.to(features), bias.to(features), iterations)


def _fit_sklearn(
    features: Tensor, label: Tensor, n_cls: int, c: float, max_iter: int, tolerance: float
) -> tuple[Tensor, Tensor, int]:
    from sklearn.exceptions import ConvergenceWarning  # here: it takes a second to import
    from sklearn.linear_model import LogisticRegression

    # For two classes scikit-learn trains one row w = W_1 - W_0 under ½ ‖w‖². The objective here is least at
    # W_1 = -W_0 = ½ w, where its penalty is ¼ ‖w‖²: the same with twice the C.
    binary = n_cls == 2
    model = LogisticRegression(C=2 * c if binary else c, max_iter=max_iter, tol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations tells
        warnings.filterwarnings("ignore", "The number of unique classes")  # few images a class are meant
        model.fit(features.cpu().numpy(), label.cpu().numpy())
    weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if binary:
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return weight, bias, int(np.max(model.n_iter_))


@torch.enable_grad()
def _fit_torch(
    features: Tensor, label: Tensor, n_cls: int, c: float, max_iter: int, tolerance: float
) -> tuple[Tensor, Tensor, int]:
    n, d = features.shape
    weight = features.new_zeros(n_cls, d, requires_grad=True)
    bias = features.new_zeros(n_cls, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iter,
        max_eval=100 * max_iter,  # the line search's; iterations alone are limited
        tolerance_grad=tolerance,
        tolerance_change=64 * torch.finfo(features.dtype).eps,  # scikit-learn's
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective(weight, bias, features, label, c) / (c * n)  # scaled as scikit-learn does, for the tolerance
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]  # declared to return float, documented to return the loss
    return weight.detach(), bias.detach(), int(optimiser.state[weight]["n_iter"])


def search(score: Callable[[float], float]) -> float:
    """The published search for C: the best of GRID, then bisection on a logarithmic scale.

    The interval is [0.1·C, 10·C] around the best of the grid, the largest of equals. Each of the BISECTIONS steps keeps
    the end with the higher score, the lower end of equals, and goes on between the geometric middle and the kept end.

    Args:
        score: of a C, higher is better; asked once for each C, since exponents halve exactly.

    Returns:
        The end that was kept in the last step.
    """
    scores: dict[float, float] = {}

    def at(exponent: float) -> float:
        if exponent not in scores:
            scores[exponent] = score(10.0**exponent)
        return scores[exponent]

    best = max(GRID, key=at)
    low, high = best - 1.0, best + 1.0
    kept = low
    for _ in range(BISECTIONS):
        kept = high if at(high) > at(low) else low
        low, high = sorted(((low + high) / 2, kept))
    return 10.0**kept
