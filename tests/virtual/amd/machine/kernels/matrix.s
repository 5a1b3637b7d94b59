// Loads A (two registers), B (two) and C (32), runs the instruction that test_matrix.c writes over the two s_nops,
// and stores D (32 registers). With AGPR=1, C and D are accumulation registers. Assembled and linked:
//   clang-19 -target amdgcn-amd-amdhsa -mcpu=gfx942 matrix.s -o matrix.co
.amdgcn_target "amdgcn-amd-amdhsa--gfx942"
.macro KERNEL name, agpr
.text
.globl \name
.p2align 8
.type \name,@function
\name:
  s_load_dwordx4 s[4:7], s[0:1], 0x0
  v_and_b32 v1, 1023, v0
  v_lshlrev_b32 v1, 2, v1
  s_waitcnt lgkmcnt(0)
  .set r, 2
  .rept 4
  global_load_dword v[r], v1, s[4:5]
  s_add_u32 s4, s4, 256
  s_addc_u32 s5, s5, 0
  .set r, r + 1
  .endr
  .set r, 8
  .rept 32
  global_load_dword v[r], v1, s[4:5]
  s_add_u32 s4, s4, 256
  s_addc_u32 s5, s5, 0
  .set r, r + 1
  .endr
  s_waitcnt vmcnt(0)
  .if \agpr
  .set r, 0
  .rept 32
  v_accvgpr_write_b32 a[r + 8], v[r + 8]
  .set r, r + 1
  .endr
  .endif
  s_nop 15
  s_nop 15
  s_nop 7
  .if \agpr
  .set r, 0
  .rept 32
  v_accvgpr_read_b32 v[r + 40], a[r + 40]
  .set r, r + 1
  .endr
  .endif
  .set r, 40
  .rept 32
  global_store_dword v1, v[r], s[6:7]
  s_add_u32 s6, s6, 256
  s_addc_u32 s7, s7, 0
  .set r, r + 1
  .endr
  s_endpgm
.rodata
.p2align 6
.amdhsa_kernel \name
  .amdhsa_user_sgpr_kernarg_segment_ptr 1
  .amdhsa_next_free_vgpr 144
  .amdhsa_next_free_sgpr 16
  .amdhsa_accum_offset 72
.end_amdhsa_kernel
.endm
KERNEL matrix_v, 0
KERNEL matrix_a, 1
.amdgpu_metadata
---
amdhsa.version: [ 1, 2 ]
amdhsa.target: amdgcn-amd-amdhsa--gfx942
amdhsa.kernels:
  - .name: matrix_v
    .symbol: matrix_v.kd
    .kernarg_segment_size: 16
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 144
    .agpr_count: 72
    .max_flat_workgroup_size: 64
  - .name: matrix_a
    .symbol: matrix_a.kd
    .kernarg_segment_size: 16
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 144
    .agpr_count: 72
    .max_flat_workgroup_size: 64
...
.end_amdgpu_metadata
