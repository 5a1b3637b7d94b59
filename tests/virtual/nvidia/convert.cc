// Conversions and half arithmetic against the host functions of the CUDA headers, on random bits and on
// every bit pattern of sixteen bits.
//
//   convert [rounds]     a million values of each kind a round
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

static void need(CUresult result, const char *what)
{
    if (result != CUDA_SUCCESS) {
        std::printf("Bail out! %s: error %d\n", what, (int)result);
        std::exit(1);
    }
}

template <class T> static T bits(uint32_t value)
{
    T t;
    std::memcpy(&t, &value, sizeof t);
    return t;
}

template <class T> static uint32_t word(T value)
{
    uint32_t w = 0;
    std::memcpy(&w, &value, sizeof value);
    return w;
}

struct Form {
    const char *name, *body; // %i0..2 to %o0
    uint32_t (*host)(uint32_t, uint32_t, uint32_t);
    int half; // 16: halves that are NaN compare as NaN (f16), 8: bf16, 0: all bits
};

static float f(uint32_t v) { return bits<float>(v); }

static uint32_t fp8(uint32_t a, uint32_t b, __nv_fp8_interpretation_t kind)
{
    // cvt.x2 puts the first operand into the upper byte
    return (uint32_t)__nv_cvt_float_to_fp8(f(a), __NV_SATFINITE, kind) << 8 |
           __nv_cvt_float_to_fp8(f(b), __NV_SATFINITE, kind);
}

static uint32_t from_fp8(uint32_t a, __nv_fp8_interpretation_t kind)
{
    __half2_raw h = __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)a, kind);
    return (uint32_t)h.y << 16 | h.x;
}

#define HALF2(expression)                                                                          \
    [](uint32_t a, uint32_t b, uint32_t c) -> uint32_t {                                           \
        __half2 x = bits<__half2>(a), y = bits<__half2>(b), z = bits<__half2>(c);                  \
        (void)y, (void)z;                                                                          \
        return word(expression);                                                                   \
    }
#define BF162(expression)                                                                          \
    [](uint32_t a, uint32_t b, uint32_t c) -> uint32_t {                                           \
        __nv_bfloat162 x = bits<__nv_bfloat162>(a), y = bits<__nv_bfloat162>(b),                   \
                       z = bits<__nv_bfloat162>(c);                                                \
        (void)y, (void)z;                                                                          \
        return word(expression);                                                                   \
    }

static const Form forms[] = {
    {"cvt.rn.f16.f32", "mov.b32 %f0, %i0; cvt.rn.f16.f32 %h0, %f0; cvt.u32.u16 %o0, %h0;",
     [](uint32_t a, uint32_t, uint32_t) { return word(__float2half_rn(f(a))); }, 16},
    {"cvt.rz.f16.f32", "mov.b32 %f0, %i0; cvt.rz.f16.f32 %h0, %f0; cvt.u32.u16 %o0, %h0;",
     [](uint32_t a, uint32_t, uint32_t) { return word(__float2half_rz(f(a))); }, 16},
    {"cvt.rn.bf16.f32", "mov.b32 %f0, %i0; cvt.rn.bf16.f32 %h0, %f0; cvt.u32.u16 %o0, %h0;",
     [](uint32_t a, uint32_t, uint32_t) { return word(__float2bfloat16_rn(f(a))); }, 8},
    {"cvt.rz.bf16.f32", "mov.b32 %f0, %i0; cvt.rz.bf16.f32 %h0, %f0; cvt.u32.u16 %o0, %h0;",
     [](uint32_t a, uint32_t, uint32_t) { return word(__float2bfloat16_rz(f(a))); }, 8},
    {"cvt.f32.f16", "cvt.u16.u32 %h0, %i0; cvt.f32.f16 %f0, %h0; mov.b32 %o0, %f0;",
     [](uint32_t a, uint32_t, uint32_t) { return word(__half2float(bits<__half>(a))); }, 32},
    {"cvt.rn.satfinite.e4m3x2.f32",
     "mov.b32 %f0, %i0; mov.b32 %f1, %i1; cvt.rn.satfinite.e4m3x2.f32 %h0, %f0, %f1; cvt.u32.u16 %o0, %h0;",
     [](uint32_t a, uint32_t b, uint32_t) { return fp8(a, b, __NV_E4M3); }, 4},
    {"cvt.rn.satfinite.e5m2x2.f32",
     "mov.b32 %f0, %i0; mov.b32 %f1, %i1; cvt.rn.satfinite.e5m2x2.f32 %h0, %f0, %f1; cvt.u32.u16 %o0, %h0;",
     [](uint32_t a, uint32_t b, uint32_t) { return fp8(a, b, __NV_E5M2); }, 5},
    {"cvt.rn.f16x2.e4m3x2", "cvt.u16.u32 %h0, %i0; cvt.rn.f16x2.e4m3x2 %o0, %h0;",
     [](uint32_t a, uint32_t, uint32_t) { return from_fp8(a & 0xffff, __NV_E4M3); }, 16},
    {"cvt.rn.f16x2.e5m2x2", "cvt.u16.u32 %h0, %i0; cvt.rn.f16x2.e5m2x2 %o0, %h0;",
     [](uint32_t a, uint32_t, uint32_t) { return from_fp8(a & 0xffff, __NV_E5M2); }, 16},
    {"add.rn.f16x2", "add.rn.f16x2 %o0, %i0, %i1;", HALF2(__hadd2(x, y)), 16},
    {"mul.rn.f16x2", "mul.rn.f16x2 %o0, %i0, %i1;", HALF2(__hmul2(x, y)), 16},
    {"min.f16x2", "min.f16x2 %o0, %i0, %i1;", HALF2(__hmin2(x, y)), 16},
    {"add.rn.bf16x2", "add.rn.bf16x2 %o0, %i0, %i1;", BF162(__hadd2(x, y)), 8},
    {"mul.rn.bf16x2", "mul.rn.bf16x2 %o0, %i0, %i1;", BF162(__hmul2(x, y)), 8},
};

// NaN is one value here: its bits are held against hardware elsewhere.
static uint32_t plain(uint32_t v, int half)
{
    for (int shift = 0; (half == 16 || half == 8) && shift < 32; shift += 16)
        if ((v >> shift & 0x7fff) > (half == 16 ? 0x7c00u : 0x7f80u))
            v = (v & ~(0xffffu << shift)) | 0x7fffu << shift;
    if (half == 32 && (v & 0x7fffffff) > 0x7f800000)
        v = 0x7fffffff;
    for (int shift = 0; (half == 4 || half == 5) && shift < 16; shift += 8)
        if ((v >> shift & 0x7f) > (half == 4 ? 0x7eu : 0x7cu))
            v = (v & ~(0xffu << shift)) | 0x7fu << shift;
    return v;
}

static uint64_t state = 1;
static uint32_t draw()
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

int main(int argc, char **argv)
{
    const int n = 1 << 20, rounds = argc > 1 ? std::atoi(argv[1]) : 1;
    std::vector<uint32_t> in(3 * n), out(n);
    CUdevice device;
    CUcontext context;
    CUdeviceptr d_in, d_out;
    int wrong = 0;
    need(cuInit(0), "cuInit");
    need(cuDeviceGet(&device, 0), "cuDeviceGet");
    need(cuDevicePrimaryCtxRetain(&context, device), "context");
    need(cuCtxSetCurrent(context), "context");
    need(cuMemAlloc(&d_in, in.size() * 4), "cuMemAlloc");
    need(cuMemAlloc(&d_out, out.size() * 4), "cuMemAlloc");
    for (const Form &form : forms) {
        std::string text = ".version 8.1\n.target sm_90\n.address_size 64\n"
            ".visible .entry k(.param .u64 in, .param .u64 out)\n{\n.reg .b32 %i<3>, %o<1>, %t<4>;\n"
            ".reg .b16 %h<2>;\n.reg .f32 %f<2>;\n.reg .b64 %a<2>;\nld.param.u64 %a0, [in];\n"
            "ld.param.u64 %a1, [out];\nmov.u32 %t0, %ctaid.x;\nmov.u32 %t1, %ntid.x;\nmov.u32 %t2, %tid.x;\n"
            "mad.lo.u32 %t3, %t0, %t1, %t2;\nmad.wide.u32 %a0, %t3, 12, %a0;\nmad.wide.u32 %a1, %t3, 4, %a1;\n"
            "ld.global.b32 %i0, [%a0];\nld.global.b32 %i1, [%a0+4];\nld.global.b32 %i2, [%a0+8];\n";
        text += form.body;
        text += "\nst.global.b32 [%a1], %o0;\nret;\n}\n";
        CUmodule module;
        CUfunction k;
        need(cuModuleLoadData(&module, text.c_str()), form.name);
        need(cuModuleGetFunction(&k, module, "k"), form.name);
        int bad = 0;
        for (int round = 0; round < rounds; round++) {
            for (int i = 0; i < n; i++) {
                in[3 * i] = draw();
                in[3 * i + 1] = draw();
                in[3 * i + 2] = draw();
                if (!round && i < 1 << 16) // all patterns of sixteen bits, as a half and as the top of a float
                    in[3 * i] = (uint32_t)i << 16 | (uint32_t)i;
                else if (i % 4 == 1) // floats near the range of the small formats
                    in[3 * i] = (in[3 * i] & 0x807fffff) | (97 + draw() % 48) << 23;
                if (i % 8 == 1) // halfway between two values of fewer bits
                    in[3 * i] &= ~0u << (12 + draw() % 10);
            }
            need(cuMemcpyHtoD(d_in, in.data(), in.size() * 4), "copy");
            void *params[] = {&d_in, &d_out};
            need(cuLaunchKernel(k, n / 256, 1, 1, 256, 1, 1, 0, nullptr, params, nullptr), form.name);
            need(cuMemcpyDtoH(out.data(), d_out, out.size() * 4), form.name);
            for (int i = 0; i < n; i++) {
                uint32_t want = form.host(in[3 * i], in[3 * i + 1], in[3 * i + 2]);
                if (plain(want, form.half) == plain(out[i], form.half))
                    continue;
                if (!bad++)
                    std::printf("%s of %08x %08x %08x: %08x here, %08x by the header\n", form.name,
                                in[3 * i], in[3 * i + 1], in[3 * i + 2], out[i], want);
            }
        }
        std::printf("%s: %s: %d of %d\n", bad ? "not ok" : "ok", form.name, n * rounds - bad, n * rounds);
        wrong += bad != 0;
        need(cuModuleUnload(module), "unload");
    }
    return wrong != 0;
}
