/* objects.hip: what the loader's test reads, in every form that clang makes (make_objects.sh). */
#define DEVICE __attribute__((device))

extern "C" {

DEVICE int counter = 5;
DEVICE __attribute__((constant)) float table[4] = {1, 2, 3, 4};
DEVICE int *pointer = &counter;

__attribute__((global)) void add(float *a, const float *b, int n)
{
    __attribute__((shared)) float staged[64];
    int lane = __builtin_amdgcn_workitem_id_x();
    int i = __builtin_amdgcn_workgroup_id_x() * __builtin_amdgcn_workgroup_size_x() + lane;
    staged[lane & 63] = b[i];
    __builtin_amdgcn_s_barrier();
    if (i < n)
        a[i] += staged[(lane + 1) & 63] + table[i & 3] + *pointer;
}
}
