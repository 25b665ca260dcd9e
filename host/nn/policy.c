/* The list of sparsity policies. */
#include "host/nn/policy.h"

#include <string.h>

const cldsa_policy *const cldsa_policies[] = {&cldsa_policy_dense, &cldsa_policy_fixed, &cldsa_policy_controller, NULL};

cldsa_status cldsa_find_policy(const char *name, const cldsa_policy **out) {
    const char *names[sizeof cldsa_policies / sizeof *cldsa_policies];
    size_t count = 0;
    for (; cldsa_policies[count]; ++count) {
        if (strcmp(cldsa_policies[count]->name, name) == 0) {
            *out = cldsa_policies[count];
            return CLDSA_SUCCESS;
        }
        names[count] = cldsa_policies[count]->name;
    }
    const char *near = cldsa_nearest_name(name, names, count);
    return cldsa_fail(CLDSA_NOT_FOUND, "policy \"%s\" is unknown; %s%s", name,
                      near ? "did you mean " : "known are dense, fixed, controller", near ? near : "");
}
