# shellcheck shell=bash
# Sourced by the scripts of this folder: the trainer, its config for the embedded benchmark, and the one for real data.
# CoOp's published base-to-new runs train for 200 epochs, on ImageNet for 50.
# shellcheck disable=SC2034  # used by the sourcing script
METHOD=(CoOp mini_vit8_ep20 vit_b16_ep200_ctxv1)
if [[ ${1:-} == imagenet ]]; then METHOD[2]=vit_b16_ep50_ctxv1; fi
