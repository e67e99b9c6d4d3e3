"""Compute at test time: what samples are worth against size, and what a draft model saves."""

from __future__ import annotations

from harness.errors import WrongInput


def matched_samples(size_ratio: float, inference_ratio: float) -> float:
    """How many times the inference of the small model buys the same compute as a larger model.

    A model M times larger costs M 6 N D_pre + M 2 N D_inf; the small one with S times the inference costs
    6 N D_pre + S 2 N D_inf. Equal for S = M + 3 (M - 1)/R with R = D_inf/D_pre (Snell et al. 2408.03314).
    """
    if not (size_ratio >= 1 and inference_ratio > 0):
        raise WrongInput(
            f"the size ratio is at least 1 and R positive, not {size_ratio} and {inference_ratio}"
        )
    return size_ratio + 3 / inference_ratio * (size_ratio - 1)


def speculative_tokens(acceptance: float, draft: int) -> float:
    """Expected tokens per pass of the large model with `draft` drafted ones: (1 - a^(g+1)) / (1 - a).

    `acceptance` is the chance that one drafted token is kept (Leviathan et al. 2211.17192, equation 1).
    """
    if not (0 <= acceptance <= 1 and draft >= 0):
        raise WrongInput(f"acceptance lies in [0, 1] and draft >= 0, not {acceptance} and {draft}")
    if acceptance == 1:
        return draft + 1.0
    return (1 - acceptance ** (draft + 1)) / (1 - acceptance)


def speculative_speedup(acceptance: float, draft: int, draft_cost: float) -> float:
    """Expected gain in wall time, E[tokens] / (g c + 1), where one pass of the draft model costs
    `draft_cost` passes of the large one (Leviathan et al., theorem 3.8). Below 1 it slows down."""
    if draft_cost < 0:
        raise WrongInput(f"the cost of a draft pass must not be negative, not {draft_cost}")
    return speculative_tokens(acceptance, draft) / (draft * draft_cost + 1)
