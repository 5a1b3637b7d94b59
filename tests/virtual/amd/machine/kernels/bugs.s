// One mistake a kernel; test_bugs.c says which, and what is to be said of it. Made of a list, assembled and linked:
//   clang-19 -target amdgcn-amd-amdhsa -mcpu=gfx942 bugs.s -o bugs.co
// Arguments: s[4:5] 2048 bytes to read, s[6:7] 2048 bytes to write, s[8:9] memory that was freed. v1: four times the lane.
.amdgcn_target "amdgcn-amd-amdhsa--gfx942"
.macro BEGIN name
.text
.globl \name
.p2align 8
.type \name,@function
\name:
  s_load_dwordx4 s[4:7], s[0:1], 0x0
  s_load_dwordx2 s[8:9], s[0:1], 0x10
  v_lshlrev_b32 v1, 2, v0
  s_waitcnt lgkmcnt(0)
.endm
.macro END name, lds, scratch
  s_endpgm
.rodata
.p2align 6
.amdhsa_kernel \name
  .amdhsa_user_sgpr_kernarg_segment_ptr 1
  .amdhsa_next_free_vgpr 40
  .amdhsa_next_free_sgpr 16
  .amdhsa_accum_offset 32
  .amdhsa_group_segment_fixed_size \lds
  .amdhsa_private_segment_fixed_size \scratch
  .amdhsa_enable_private_segment 1
.end_amdhsa_kernel
.endm
BEGIN fine
  global_load_dword v2, v1, s[4:5]
  s_waitcnt vmcnt(0)
  v_add_f32 v3, v2, v2
  global_store_dword v1, v3, s[6:7]
END fine, 1024, 0
BEGIN wait_vm
  global_load_dword v2, v1, s[4:5]
  v_add_f32 v3, v2, v2
  global_store_dword v1, v3, s[6:7]
END wait_vm, 0, 0
BEGIN wait_scalar
  s_load_dword s10, s[4:5], 0x10
  v_mov_b32 v3, s10
  global_store_dword v1, v3, s[6:7]
END wait_scalar, 0, 0
BEGIN wait_lds
  v_mov_b32 v2, 1.0
  ds_write_b32 v1, v2
  ds_read_b32 v3, v1
  v_add_f32 v3, v3, v3
  global_store_dword v1, v3, s[6:7]
END wait_lds, 1024, 0
BEGIN wait_count
  global_load_dword v2, v1, s[4:5]
  global_load_dword v3, v1, s[4:5] offset:4
  s_waitcnt vmcnt(1)
  v_add_f32 v3, v3, v2
  global_store_dword v1, v3, s[6:7]
END wait_count, 0, 0
BEGIN wait_stored
  global_load_dword v2, v1, s[4:5]
  global_store_dword v1, v2, s[6:7]
END wait_stored, 0, 0
BEGIN wait_order
  s_load_dword s10, s[4:5], 0x10
  s_load_dword s11, s[4:5], 0x20
  s_waitcnt lgkmcnt(1)
  v_mov_b32 v3, s10
  global_store_dword v1, v3, s[6:7]
END wait_order, 0, 0
BEGIN wait_address
  v_mov_b32 v9, 0
  global_load_dwordx2 v[2:3], v9, s[0:1]
  global_load_dword v4, v[2:3], off
  s_waitcnt vmcnt(0)
  global_store_dword v1, v4, s[6:7]
END wait_address, 0, 0
BEGIN wait_into_lds
  s_mov_b32 m0, 0
  global_load_lds_dword v1, s[4:5]
  ds_read_b32 v3, v1
  s_waitcnt lgkmcnt(0)
  global_store_dword v1, v3, s[6:7]
END wait_into_lds, 1024, 0
BEGIN wait_overwritten
  global_load_dword v2, v1, s[4:5]
  v_mov_b32 v2, 0
  s_waitcnt vmcnt(0)
  global_store_dword v1, v2, s[6:7]
END wait_overwritten, 0, 0
BEGIN bounds_load
  global_load_dword v2, v1, s[4:5] offset:2048
  s_waitcnt vmcnt(0)
  global_store_dword v1, v2, s[6:7]
END bounds_load, 0, 0
BEGIN bounds_store
  v_mov_b32 v2, 0
  global_store_dword v1, v2, s[6:7] offset:-4
END bounds_store, 0, 0
BEGIN bounds_null
  v_mov_b32 v2, 0
  v_mov_b32 v3, 0
  global_store_dword v[2:3], v1, off
END bounds_null, 0, 0
BEGIN bounds_freed
  v_mov_b32 v2, 0
  global_store_dword v1, v2, s[8:9]
END bounds_freed, 0, 0
BEGIN bounds_scalar
  s_load_dwordx4 s[12:15], s[4:5], 0x7f8
  s_waitcnt lgkmcnt(0)
END bounds_scalar, 0, 0
BEGIN bounds_lds
  v_mov_b32 v2, 0
  ds_write_b32 v1, v2
END bounds_lds, 128, 0
BEGIN bounds_scratch
  v_mov_b32 v2, 0
  scratch_store_dword off, v2, off offset:16
END bounds_scratch, 0, 16
BEGIN bounds_scratch_flat
  s_mov_b64 s[10:11], src_private_base
  v_mov_b32 v2, 64
  v_mov_b32 v3, s11
  flat_store_dword v[2:3], v1
END bounds_scratch_flat, 0, 16
BEGIN misaligned
  v_mov_b32 v2, 1
  global_atomic_add v1, v2, s[6:7] offset:2
END misaligned, 0, 0
BEGIN unwritten_memory
  global_load_dword v2, v1, s[6:7] offset:1024
  s_waitcnt vmcnt(0)
  global_store_dword v1, v2, s[6:7]
END unwritten_memory, 0, 0
BEGIN unwritten_lds
  ds_read_b32 v2, v1 offset:256
  s_waitcnt lgkmcnt(0)
  global_store_dword v1, v2, s[6:7]
END unwritten_lds, 1024, 0
BEGIN unwritten_address
  global_load_dword v2, v20, s[4:5]
  s_waitcnt vmcnt(0)
  global_store_dword v1, v2, s[6:7]
END unwritten_address, 0, 0
BEGIN unwritten_stored
  v_add_f32 v3, v20, v1
  global_store_dword v1, v3, s[6:7]
END unwritten_stored, 0, 0
BEGIN unwritten_compared
  v_lshlrev_b32 v4, 3, v21
  v_cmp_gt_u32 vcc, v4, v1
  v_cndmask_b32 v3, 0, 1, vcc
  global_store_dword v1, v3, s[6:7]
END unwritten_compared, 0, 0
BEGIN unwritten_scalar
  s_load_dword s10, s[14:15], 0x0
  s_waitcnt lgkmcnt(0)
END unwritten_scalar, 0, 0
BEGIN unwritten_lane
  v_cmp_gt_u32 vcc, 32, v0
  s_and_saveexec_b64 s[10:11], vcc
  v_mov_b32 v3, 1.0
  s_mov_b64 exec, s[10:11]
  global_store_dword v1, v3, s[6:7]
END unwritten_lane, 0, 0
BEGIN relative_written
  global_load_dword v2, v1, s[4:5]
  s_mov_b32 s10, 5
  s_waitcnt vmcnt(0)
  s_set_gpr_idx_on s10, gpr_idx(DST)
  v_add_f32 v20, v2, v2
  s_set_gpr_idx_off
  global_store_dword v1, v25, s[6:7]
END relative_written, 0, 0
BEGIN unwritten_relative
  v_mov_b32 v20, 1.0
  s_mov_b32 s10, 5
  s_set_gpr_idx_on s10, gpr_idx(SRC0)
  v_mov_b32 v3, v20
  s_set_gpr_idx_off
  global_store_dword v1, v3, s[6:7]
END unwritten_relative, 0, 0
BEGIN race_read
  v_mov_b32 v2, v0
  ds_write_b32 v1, v2
  s_waitcnt lgkmcnt(0)
  s_barrier
  ds_write_b32 v1, v0
  s_waitcnt lgkmcnt(0)
  v_xor_b32 v3, 0x100, v1
  ds_read_b32 v4, v3
  s_waitcnt lgkmcnt(0)
  global_store_dword v1, v4, s[6:7]
END race_read, 1024, 0
BEGIN race_write
  v_mov_b32 v2, v0
  v_and_b32 v3, 0xff, v1
  ds_write_b32 v3, v2
END race_write, 1024, 0
BEGIN barriers
  v_readfirstlane_b32 s10, v0
  s_cmp_lg_u32 s10, 0
  s_cbranch_scc1 1f
  s_barrier
  s_branch 2f
1:
  s_nop 0
  s_barrier
2:
END barriers, 0, 0
BEGIN not_implemented
  v_smfmac_f32_16x16x32_f16 v[4:7], v[0:1], v[0:3], v1
END not_implemented, 0, 0
BEGIN not_an_instruction
  .long 0xffffffff
END not_an_instruction, 0, 0
BEGIN register_v
  v_mov_b32 v40, 0
END register_v, 0, 0
BEGIN register_a
  v_accvgpr_write_b32 a8, v1
END register_a, 0, 0
BEGIN jump
  s_mov_b64 s[10:11], 0
  s_setpc_b64 s[10:11]
END jump, 0, 0
BEGIN trap
  s_trap 2
END trap, 0, 0
BEGIN forever
1:
  s_nop 0
  s_branch 1b
END forever, 0, 0
.amdgpu_metadata
---
amdhsa.version: [ 1, 2 ]
amdhsa.target: amdgcn-amd-amdhsa--gfx942
amdhsa.kernels:
  - .name: fine
    .symbol: fine.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 1024
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: wait_vm
    .symbol: wait_vm.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: wait_scalar
    .symbol: wait_scalar.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: wait_lds
    .symbol: wait_lds.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 1024
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: wait_count
    .symbol: wait_count.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: wait_stored
    .symbol: wait_stored.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: wait_order
    .symbol: wait_order.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: wait_address
    .symbol: wait_address.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: wait_into_lds
    .symbol: wait_into_lds.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 1024
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: wait_overwritten
    .symbol: wait_overwritten.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: bounds_load
    .symbol: bounds_load.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: bounds_store
    .symbol: bounds_store.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: bounds_null
    .symbol: bounds_null.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: bounds_freed
    .symbol: bounds_freed.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: bounds_scalar
    .symbol: bounds_scalar.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: bounds_lds
    .symbol: bounds_lds.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 128
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: bounds_scratch
    .symbol: bounds_scratch.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 16
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: bounds_scratch_flat
    .symbol: bounds_scratch_flat.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 16
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: misaligned
    .symbol: misaligned.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: unwritten_memory
    .symbol: unwritten_memory.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: unwritten_lds
    .symbol: unwritten_lds.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 1024
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: unwritten_address
    .symbol: unwritten_address.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: unwritten_stored
    .symbol: unwritten_stored.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: unwritten_compared
    .symbol: unwritten_compared.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: unwritten_scalar
    .symbol: unwritten_scalar.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: unwritten_lane
    .symbol: unwritten_lane.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: relative_written
    .symbol: relative_written.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: unwritten_relative
    .symbol: unwritten_relative.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: race_read
    .symbol: race_read.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 1024
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: race_write
    .symbol: race_write.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 1024
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: barriers
    .symbol: barriers.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: not_implemented
    .symbol: not_implemented.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: not_an_instruction
    .symbol: not_an_instruction.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: register_v
    .symbol: register_v.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: register_a
    .symbol: register_a.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: jump
    .symbol: jump.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: trap
    .symbol: trap.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
  - .name: forever
    .symbol: forever.kd
    .kernarg_segment_size: 24
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 0
    .private_segment_fixed_size: 0
    .wavefront_size: 64
    .sgpr_count: 16
    .vgpr_count: 40
    .agpr_count: 8
    .max_flat_workgroup_size: 128
...
.end_amdgpu_metadata
