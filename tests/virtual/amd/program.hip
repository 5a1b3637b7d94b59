/* program.hip: host and device in one file, launched by <<<>>>: what clang makes of it registers a fat
 * binary, kernels and variables with the runtime, and calls hipLaunchKernel. */
typedef unsigned long size_t;
typedef struct ihipStream_t *hipStream_t;
typedef int hipError_t;
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern "C" {
int printf(const char *format, ...);
hipError_t hipMalloc(void **out, size_t bytes);
hipError_t hipMemcpy(void *to, const void *from, size_t bytes, int kind);
hipError_t hipMemcpyToSymbol(const void *symbol, const void *from, size_t bytes, size_t offset, int kind);
hipError_t __hipPushCallConfiguration(dim3 grid, dim3 block, size_t lds = 0, hipStream_t stream = nullptr);
hipError_t hipLaunchKernel(const void *host, dim3 grid, dim3 block, void **params, size_t lds,
                           hipStream_t stream);
}

__attribute__((device)) int scale = 3;

__attribute__((global)) void multiply(int *out, int start)
{
    int i = (int)__builtin_amdgcn_workitem_id_x();
    out[i] = start + scale * i;
}

enum { TO_DEVICE = 1, TO_HOST = 2 };

static int wrong(int *memory, int factor)
{
    int out[64], count = 0;
    if (hipMemcpy(out, memory, sizeof out, TO_HOST))
        return 1;
    for (int i = 0; i < 64; i++)
        count += out[i] != 100 + factor * i;
    return count;
}

int main()
{
    int *memory, seven = 7;
    if (hipMalloc((void **)&memory, 64 * sizeof(int)))
        return 1;
    multiply<<<1, 64>>>(memory, 100);
    int before = wrong(memory, 3);
    if (hipMemcpyToSymbol(&scale, &seven, sizeof seven, 0, TO_DEVICE))
        return 1;
    multiply<<<dim3(1), dim3(64), 0, nullptr>>>(memory, 100);
    int after = wrong(memory, 7);
    printf("%d and %d of 64 are wrong\n", before, after);
    return before || after;
}
