/*
 * cldsa: dynamic sparse attention on every OpenCL device.
 *
 * A cheap indexer scores all keys, top-k selects a few, attention runs over those; forward and backward. One small
 * header per concept; this one includes them all. Each operation is a function cldsa_NAME that enqueues and returns,
 * and cldsa_NAME_workspace that says how much scratch memory the same call needs.
 */
#ifndef CLDSA_H
#define CLDSA_H

#include <cldsa/activation.h>
#include <cldsa/adamw.h>
#include <cldsa/context.h>
#include <cldsa/controller.h>
#include <cldsa/cross_entropy.h>
#include <cldsa/device.h>
#include <cldsa/embedding.h>
#include <cldsa/export.h>
#include <cldsa/gemm.h>
#include <cldsa/indexer_kl.h>
#include <cldsa/indexer_scores.h>
#include <cldsa/layer_norm.h>
#include <cldsa/masked_attention.h>
#include <cldsa/moe.h>
#include <cldsa/profile.h>
#include <cldsa/reduce.h>
#include <cldsa/rms_norm.h>
#include <cldsa/rope.h>
#include <cldsa/select.h>
#include <cldsa/sparse_attention.h>
#include <cldsa/status.h>
#include <cldsa/tensor.h>
#include <cldsa/topk.h>

#endif
