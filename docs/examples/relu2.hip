/* relu2.hip: x = max(x, 0)^2, for kernel.c. A code object of it, without ROCm:
 * clang-19 -x hip --offload-arch=gfx942 --cuda-device-only --no-gpu-bundle-output -nogpulib -nogpuinc
 *     -O3 relu2.hip -o relu2.co
 */
extern "C" __attribute__((global)) void relu2(float *x, unsigned n)
{
    unsigned i = __builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x();
    if (i < n)
        x[i] = x[i] > 0 ? x[i] * x[i] : 0;
}
