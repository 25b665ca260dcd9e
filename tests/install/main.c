/* Uses what only the installed headers and library give. */
#include <cldsa/cldsa.h>

int main(void) {
    cldsa_tensor scores = {.rank = 2, .shape = {4, 8}};
    return cldsa_tensor_numel(&scores) == 32 && *cldsa_status_name(CLDSA_NOT_FOUND) == 'C' ? 0 : 1;
}
