/* Every row keeps every key it sees. The yardstick for the others; the indexer's parameters exist and rest unused. */
#include "host/nn/policy.h"

const cldsa_policy cldsa_policy_dense = {
    .name = "dense",
    .summary = "every key a row sees",
    .layer_bytes = sizeof(cldsa_policy_layer),
    .keeps_all = true,
};
