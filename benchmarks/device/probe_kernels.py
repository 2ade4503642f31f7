"""The OpenCL texts of the probe: what a device can do at best, without anything of code generation."""

from __future__ import annotations

__all__ = ["BASIC", "CHAINS", "PRODUCT", "TENSOR_OPERATIONS", "TILE", "tensor_source"]

CHAINS = 16  # independent sums of a work item that multiplies and adds
BASIC = """
__kernel void nothing(__global float* out) {
  if (get_global_id(0) == 123456789) out[0] = 1.0f;
}

__kernel void copy_floats(__global const float* restrict from, __global float* restrict to, const int count) {
  for (int i = get_global_id(0); i < count; i += get_global_size(0)) to[i] = from[i];
}

__kernel void copy_vectors(__global const float4* restrict from, __global float4* restrict to, const int count) {
  for (int i = get_global_id(0); i < count / 4; i += get_global_size(0)) to[i] = from[i];
}

__kernel void multiply_add(__global float* out, const int turns) {
  float sums[16];
  const float start = out[get_global_id(0)];
  _Pragma("unroll")
  for (int j = 0; j < 16; ++j) sums[j] = start + j;
  for (int i = 0; i < turns; ++i) {
    _Pragma("unroll")
    for (int j = 0; j < 16; ++j) sums[j] = fma(sums[j], start, sums[j]);
  }
  float all = 0.0f;
  for (int j = 0; j < 16; ++j) all += sums[j];
  out[get_global_id(0)] = all;
}
"""

# Instructions of NVIDIA's matrix units for one warp, and the operations of each: 16 x 8 sums of 8 or 16 terms.
_TENSOR = {
    "tf32": "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
    "bf16": "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
}
TENSOR_OPERATIONS = {"tf32": 2 * 16 * 8 * 8, "bf16": 2 * 16 * 8 * 16}


def tensor_source(kind: str) -> str:
    """A kernel ``tensor`` whose warps run eight independent instructions a turn."""
    instruction = f"{_TENSOR[kind]} {{%0,%1,%2,%3}}, {{%4,%5,%6,%7}}, {{%8,%9}}, {{%0,%1,%2,%3}};"
    return f"""
__kernel void tensor(__global const uint* from, __global float* to, const int turns) {{
  const int lane = get_local_id(0);
  float sums[8][4];
  for (int j = 0; j < 8; ++j) for (int i = 0; i < 4; ++i) sums[j][i] = 0.0f;
  const uint a0 = from[lane], a1 = from[lane + 32], a2 = from[lane + 64], a3 = from[lane + 96];
  const uint b0 = from[lane + 128], b1 = from[lane + 160];
  for (int i = 0; i < turns; ++i) {{
    _Pragma("unroll")
    for (int j = 0; j < 8; ++j)
      asm volatile("{instruction}"
                   : "+f"(sums[j][0]), "+f"(sums[j][1]), "+f"(sums[j][2]), "+f"(sums[j][3])
                   : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }}
  float all = 0.0f;
  for (int j = 0; j < 8; ++j) all += sums[j][0] + sums[j][1] + sums[j][2] + sums[j][3];
  to[get_global_id(0)] = all;
}}
"""


# A product of float32 matrices, every extent a multiple of 128. A group of 256 work items makes a tile of 128 x 128, a
# work item 8 x 8 of it as four blocks of 4 x 4, so that neighbours read neighbouring vectors of local memory. Steps of
# 16 terms: while one is computed the next one's vectors are on their way to registers, and there are two buffers, so
# that one barrier a step is enough. Rows of the left panel, which is stored turned, are 132 apart against conflicts.
TILE = 128
PRODUCT = """
#define PITCH 132

__kernel __attribute__((reqd_work_group_size(256, 1, 1)))
void product(__global const float* restrict left, __global const float* restrict right, __global float* restrict out,
             const int m, const int n, const int k) {
  __local float a[2][16 * PITCH];
  __local float b[2][16 * 128];
  const int item = (int)get_local_id(0), x = item & 15, y = item >> 4;
  const int row = (int)get_group_id(1) * 128, column = (int)get_group_id(0) * 128;
  const int a_row = item >> 2, a_term = (item & 3) * 4, b_term = item >> 5, b_column = (item & 31) * 4;
  __global const float* next_a = left + (long)(row + a_row) * k + a_term;
  __global const float* next_b = right + (long)b_term * n + column + b_column;
  float4 a0 = vload4(0, next_a), a1 = vload4(0, next_a + 64l * k);
  float4 b0 = vload4(0, next_b), b1 = vload4(0, next_b + 8l * n);
  float sums[8][8];
  _Pragma("unroll")
  for (int i = 0; i < 8; ++i) {
    _Pragma("unroll")
    for (int j = 0; j < 8; ++j) sums[i][j] = 0.0f;
  }
  int now = 0;
#define KEEP(buffer) \\
  a[buffer][(a_term + 0) * PITCH + a_row] = a0.x; a[buffer][(a_term + 0) * PITCH + a_row + 64] = a1.x; \\
  a[buffer][(a_term + 1) * PITCH + a_row] = a0.y; a[buffer][(a_term + 1) * PITCH + a_row + 64] = a1.y; \\
  a[buffer][(a_term + 2) * PITCH + a_row] = a0.z; a[buffer][(a_term + 2) * PITCH + a_row + 64] = a1.z; \\
  a[buffer][(a_term + 3) * PITCH + a_row] = a0.w; a[buffer][(a_term + 3) * PITCH + a_row + 64] = a1.w; \\
  *(__local float4*)&b[buffer][b_term * 128 + b_column] = b0; \\
  *(__local float4*)&b[buffer][(b_term + 8) * 128 + b_column] = b1;
  KEEP(0)
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int begin = 16; begin <= k; begin += 16) {
    const int more = begin < k;
    if (more) {
      next_a += 16;
      next_b += 16l * n;
      a0 = *(__global const float4*)next_a;
      a1 = *(__global const float4*)(next_a + 64l * k);
      b0 = *(__global const float4*)next_b;
      b1 = *(__global const float4*)(next_b + 8l * n);
    }
    _Pragma("unroll")
    for (int t = 0; t < 16; ++t) {
      const float4 u0 = *(__local const float4*)&a[now][t * PITCH + y * 4];
      const float4 u1 = *(__local const float4*)&a[now][t * PITCH + 64 + y * 4];
      const float4 v0 = *(__local const float4*)&b[now][t * 128 + x * 4];
      const float4 v1 = *(__local const float4*)&b[now][t * 128 + 64 + x * 4];
      const float u[8] = {u0.x, u0.y, u0.z, u0.w, u1.x, u1.y, u1.z, u1.w};
      const float v[8] = {v0.x, v0.y, v0.z, v0.w, v1.x, v1.y, v1.z, v1.w};
      _Pragma("unroll")
      for (int i = 0; i < 8; ++i) {
        _Pragma("unroll")
        for (int j = 0; j < 8; ++j) sums[i][j] = fma(u[i], v[j], sums[i][j]);
      }
    }
    if (more) {
      now ^= 1;
      KEEP(now)
      barrier(CLK_LOCAL_MEM_FENCE);
    }
  }
  _Pragma("unroll")
  for (int i = 0; i < 8; ++i) {
    __global float* to = out + (long)(row + (i / 4) * 64 + y * 4 + i % 4) * n + column + x * 4;
    *(__global float4*)to = (float4)(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
    *(__global float4*)(to + 64) = (float4)(sums[i][4], sums[i][5], sums[i][6], sums[i][7]);
  }
}
"""
