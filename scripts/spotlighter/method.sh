# shellcheck shell=bash
# Sourced by the scripts of this folder: the trainer, its config for the embedded benchmark, and the one for real data.
# The paper trains CoOp with Spotlighter for 15 epochs on every data set (Appendix C).
# shellcheck disable=SC2034  # used by the sourcing script
METHOD=(Spotlighter mini_vit8_ep15_paper vit_b16_ep15_paper)
